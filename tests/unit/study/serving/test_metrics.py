"""Metrics of three requests, worked out by hand.

a: arrives 0 s, prompt 10, starts 0 s, first token 1 s, 5 tokens, ends 3 s.
b: arrives 1 s, prompt 20, starts 2 s, first token 4 s, 3 tokens, ends 8 s.
c: arrives 2 s, prompt 30, starts 2 s, first token 3 s, 1 token,  ends 3 s.

TTFT 1, 3, 1; E2E 3, 7, 1; queue 0, 1, 0; TPOT 2 / 4 = 0.5 and 4 / 2 = 2; from 0 s to 8 s.
"""

import math
from array import array

import numpy as np
import pytest

from moesim.sim.serving.requests import NEVER, Requests, ps, requests
from moesim.spec.serving.slo import SloSpec
from moesim.study.serving.dialects import DIALECTS, measures
from moesim.study.serving.gap_ranks import mean_s, percentile_s, shares_up_to, std_s
from moesim.study.serving.gaps import Gaps
from moesim.study.serving.metrics import Quantiles, counted, metrics, of_gaps


@pytest.fixture
def three() -> Requests:
    asked = requests([10, 20, 30], [5, 3, 1], [0, 1, 2])
    asked.scheduled = array("q", map(ps, (0, 2, 2)))
    asked.first = array("q", map(ps, (1, 4, 3)))
    asked.finish = array("q", map(ps, (3, 8, 3)))
    return asked


def slo(**limits: str | float) -> SloSpec:
    return SloSpec.model_validate(limits)


def pooled() -> Gaps:
    """Gaps of a: 0.2, 0.4, 0.6, 0.8 s; of b: 2 s twice."""
    return Gaps(
        first=np.array([ps(0.2), ps(2)]), last=np.array([ps(0.8), ps(2)]),
        steps=np.array([4, 1]), weight=np.array([1, 2]),
    )  # fmt: skip


def test_throughput_and_means(three: Requests) -> None:
    found = metrics(three, 0, 2, pooled())
    assert found.finished == 3
    assert found.unfinished == 0
    assert found.duration_s == 8
    assert found.requests_per_s == pytest.approx(3 / 8)
    assert found.prompt_tokens_per_s == pytest.approx(60 / 8)
    assert found.output_tokens_per_s == pytest.approx(9 / 8)
    assert found.output_tokens_per_s_per_device == pytest.approx(9 / 16)
    assert found.ttft_s.mean == pytest.approx(5 / 3)
    assert found.e2e_s.mean == pytest.approx(11 / 3)
    assert found.queue_s.mean == pytest.approx(1 / 3)
    assert found.tpot_s.mean == pytest.approx(1.25)
    assert found.output_tokens_per_s_per_user == pytest.approx(1 / 1.25)
    assert found.itl_s.mean == pytest.approx((2 + 4) / 6)


def test_percentiles_are_linear_between_ranks(three: Requests) -> None:
    found = metrics(three, 0, 1, pooled())
    # E2E in order 1, 3, 7: rank 0.9 * 2 = 1.8, so 3 + 0.8 * 4
    assert found.e2e_s.p90 == pytest.approx(6.2)
    # gaps in order 0.2 0.4 0.6 0.8 2 2: rank 2.5
    assert found.itl_s.p50 == pytest.approx(0.7)
    assert found.itl_s.p95 == pytest.approx(2)


@pytest.mark.parametrize(
    ("limits", "good"),
    [
        (slo(ttft="2 s", attainment=0.6), 2),
        (slo(tpot="1 s", attainment=0.6), 2),
        (slo(e2e="2 s", attainment=0.3), 1),
        (slo(ttft="2 s", tpot="1 s", e2e="2 s", attainment=0.9), 1),
        (slo(e2e="7 s"), 3),
    ],
)
def test_goodput_counts_what_keeps_all_limits(three: Requests, limits: SloSpec, good: int) -> None:
    found = metrics(three, 0, 1, None, None, limits)
    assert found.good_fraction == pytest.approx(good / 3)
    assert found.goodput_requests_per_s == pytest.approx(good / 8)
    assert found.meets_slo == (good / 3 >= limits.attainment)


def test_what_never_finished_is_not_good(three: Requests) -> None:
    three.finish[1] = NEVER
    found = metrics(three, 0, 1, None, None, slo(e2e="9 s", attainment=0.7))
    assert (found.finished, found.unfinished) == (2, 1)
    assert found.good_fraction == pytest.approx(2 / 3)
    assert found.meets_slo is False


def test_warm_up_is_left_out(three: Requests) -> None:
    found = metrics(three, 1, 1)
    assert found.finished == 2
    assert found.duration_s == 7
    assert math.isnan(found.itl_s.p50)


def test_nothing_finished_is_no_error(three: Requests) -> None:
    three.finish = array("q", [NEVER] * 3)
    found = metrics(three, 0, 1, None, None, slo(ttft="1 s"))
    assert (found.finished, found.meets_slo) == (0, False)
    assert math.isnan(found.ttft_s.mean)


TPOT_OF_GUIDELLM = (3 / 5 + 7 / 3 + 1 / 1) / 3
"""End to end over output tokens, the first token's time in it."""


@pytest.mark.parametrize(
    ("dialect", "means"),
    [
        ("vllm", {"TTFT": 5 / 3, "TPOT": 1.25, "ITL": 1.0, "E2EL": 11 / 3}),
        (
            "guidellm",
            {"TTFT": 5 / 3, "TPOT": TPOT_OF_GUIDELLM, "ITL": 1.25, "request latency": 11 / 3},
        ),
        ("aiperf", {"TTFT": 5 / 3, "ITL": 1.25, "request latency": 11 / 3}),
        ("mlperf", {"TTFT": 5 / 3, "TPOT": 1.25, "sample latency": 11 / 3}),
    ],
)
def test_dialects(three: Requests, dialect: str, means: dict[str, float]) -> None:
    found = measures(dialect, counted(three, 0), of_gaps(pooled()))
    assert {one.name: one.quantiles.mean for one in found} == pytest.approx(means)
    assert all(one.definition for one in found)


def test_all_dialects_are_tested() -> None:
    assert set(DIALECTS) == {"vllm", "guidellm", "aiperf", "mlperf"}


def test_percentiles_of_runs_are_those_of_all_their_gaps() -> None:
    draw = np.random.default_rng(5)
    first = draw.integers(1, 10**6, 300)
    steps = draw.integers(1, 40, 300)
    last = first + draw.integers(-20, 20, 300) * (steps - 1)
    last = np.where(last > 0, last, first)
    weight = draw.integers(1, 9, 300)
    runs = Gaps(first=first, last=last, steps=steps, weight=weight)
    each = np.concatenate(
        [np.repeat(np.linspace(a, b, n), w) for a, b, n, w in
         zip(first, last, steps, weight, strict=True)]
    )  # fmt: skip
    assert runs.count == len(each)
    assert mean_s(runs) == pytest.approx(each.mean() / 1e12)
    assert std_s(runs) == pytest.approx(each.std() / 1e12)
    for percent in (0, 1, 50, 90, 99, 99.9, 100):
        expected = np.percentile(each, percent) / 1e12
        assert percentile_s(runs, percent) == pytest.approx(expected, rel=1e-9)
    places = np.percentile(each, [3, 30, 70]) / 1e12
    shares = [float((each <= round(place * 1e12)).mean()) for place in places]
    assert shares_up_to(runs, places.tolist()) == pytest.approx(shares)


def test_no_gaps_have_no_percentiles() -> None:
    none = np.zeros(0, dtype=np.int64)
    empty = Gaps(first=none, last=none, steps=none, weight=none)
    assert math.isnan(percentile_s(empty, 50))
    assert math.isnan(mean_s(empty))
    assert math.isnan(Quantiles().p50)
