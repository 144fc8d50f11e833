"""Ratios of MoE over dense, saturation and host times, against figures worked out by hand."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from moesim.cost.iteration import TabledTimes, step_ps
from moesim.cost.serving.table import HostTime
from moesim.sim.serving.requests import requests
from moesim.spec.cases import Case
from moesim.study.serving.host import as_clients_see
from moesim.study.validate.inference.fit_host import (
    PLACES_S,
    SEQUENCE_S,
    SeenCurve,
    fit_host,
    with_host,
)
from moesim.study.validate.inference.pairs import FALL, compared_ratios
from moesim.study.validate.inference.saturated import saturated
from moesim.study.validate.record import Record, blank, ran
from tests.unit.study.validate.inference.test_any_words import CASE, no_file

COLUMNS = ["isl", "osl", "concurrency", "ttft_ms", "tpot_ms"]
ROWS = [[100, 101, 4, 50.0, 9.0], [100, 101, 64, 160.0, 20.0]]
TABLE = {"columns": COLUMNS, "rows": ROWS}


def _both() -> tuple[list[Case], list[Record]]:
    words = {**CASE, "measured": TABLE, "workload": {"arrival": "closed_loop"}}
    cases = [Case(name, "serving_curve", words) for name in ("moe", "dense")]
    records = []
    for case, times in zip(cases, ([(20, 4.0), (80, 10.0)], [(40, 8.0), (90, 12.0)]), strict=True):
        for row, (ttft, tpot) in enumerate(times):
            records.append(ran(blank(case), "ttft_ms", ttft, 50.0, row=row))
            records.append(ran(blank(case), "tpot_ms", tpot, 9.0, row=row))
    return cases, records


def test_throughput_of_a_closed_loop_is_derived_and_falls_with_load() -> None:
    """By hand: 4 * 101 / (20 + 4 * 100) over 4 * 101 / (40 + 8 * 100) is 2; then 1290 / 1080."""
    pair = {
        "moe": "moe",
        "dense": "dense",
        "metric": "isl 100 osl 101: [concurrency, output tokens/s per GPU ratio, TPOT ratio]",
        "measured_ratio_moe_over_dense": [[4, 2.0, 0.5], [64, 1.0, 0.8]],
    }
    cases, records = _both()
    found = compared_ratios(no_file((pair,)), cases, records)
    names = ["throughput_ratio", "tpot_ratio", "throughput_ratio", "tpot_ratio", FALL]
    assert [one.metric for one in found] == names
    by_hand = [2.0, 0.5, 1290 / 1080, 10 / 12, 1290 / 1080 / 2]
    assert [one.predicted for one in found] == pytest.approx(by_hand)


def test_rows_with_three_times_the_least_ttft_are_above_saturation() -> None:
    case = Case("one", "serving_curve", {**CASE, "measured": TABLE})
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    assert saturated(case, rows) == [False, True]
    later = replace(case, words={**case.words, "workload": {"arrival": "all requests at t=0"}})
    assert saturated(later, rows) == [True, True]


def test_the_host_of_a_fit_adds_to_the_device_or_bounds_it() -> None:
    """By hand: 4 ms of device time; host 0.5 ms and 1 ms for each of 8 sequences."""
    device = TabledTimes(lambda n: ([0, 1], [0.0, 0.0]), lambda t, s, e: 4e-3, lambda t, p: 0.0)
    host = HostTime(iteration_s=5e-4, sequence_s=1e-3)
    assert with_host(device, host, hidden=False).common_ps(8, 8) == 12_500 * 10**6
    assert step_ps(with_host(device, host, hidden=True).lines(8), 100) == 8_500 * 10**6
    assert step_ps(with_host(device, host, hidden=True).lines(2), 100) == 4_000 * 10**6


def test_requests_leave_their_clients_earlier() -> None:
    asked = requests([1, 1], [1, 1], [0.0, 1.0])
    as_clients_see(asked, HostTime(request_s=0.25))
    assert list(asked.arrival) == [-(10**12) // 4, 3 * 10**12 // 4]


def test_the_fit_finds_the_constants_that_made_the_figures() -> None:
    """Device times are invented; what was measured is them with 0.7 ms, 20 us and 20 ms added."""
    curves = []
    for model, batch, ttft, tpot in (("a", 40, 5.0, 6.0), ("b", 80, 9.0, 11.0), ("c", 20, 4, 3)):
        more = np.array([[1e3 * (one + each * batch) for one in PLACES_S] for each in SEQUENCE_S])
        first, each = ttft + more / batch, tpot + more
        measured = (ttft + (0.7 + 0.02 * batch) / batch + 20.0, tpot + 0.7 + 0.02 * batch, nan)
        if model == "c":
            measured = (nan, nan, 1e3 * batch / (tpot + 0.7 + 0.02 * batch))
        curves.append(SeenCurve(model, first, each, 1e-3 / batch * each, measured))
    fitted = fit_host(curves)
    found = (fitted.host.iteration_s, fitted.host.sequence_s, fitted.host.request_s)
    assert found == pytest.approx((7e-4, 2e-5, 2e-2))
    assert max(fitted.after) < 1e-9
    assert [one.model for one in fitted.left_out] == ["a", "b", "c"]
