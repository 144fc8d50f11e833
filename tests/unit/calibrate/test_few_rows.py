"""Groups of a handful of rows: the curve of a relative moves, or companions are fitted together."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.calibrate.few_rows import from_few
from moesim.calibrate.measurements import Group
from moesim.cost.curves import Array, Chip, Curve
from moesim.cost.families.collectives import FAMILIES as COLLECTIVES
from moesim.cost.families.exchange import DIRECT, FORWARDED
from moesim.cost.families.table import FAMILIES, seconds_of

pytest.importorskip("scipy")

NEAR = Chip(
    name="near", vendor="nvidia", peak_flop_per_s={"bf16": 1e15},
    memory_bandwidth_bytes_per_s=3e12, compute_units=132, l2_bytes=5e7, link_bytes_per_s=4.5e11,
)  # fmt: skip
FAR = replace(NEAR, name="far", peak_flop_per_s={"bf16": 4e15}, link_bytes_per_s=9e11)
OTHER = replace(NEAR, name="other", vendor="amd")
CHIPS = {"near": NEAR, "far": FAR, "other": OTHER}


def group(
    hardware: str, library: str, family: str, variant: str, samples: dict[str, Array],
    parameters: dict[str, float],
) -> Group:  # fmt: skip
    """Return rows that take exactly what the physics says at `parameters`."""
    rows = len(next(iter(samples.values())))
    on = CHIPS[hardware]
    seconds = FAMILIES[family].physics(samples, on, "bf16", parameters)
    numbers = np.arange(rows, dtype=np.uint64)
    return Group(
        operator="moe_alltoall", family=family, hardware=hardware, library=library, version="1",
        dtype="bf16", variant=variant, samples=samples, seconds=seconds, shapes=numbers,
        points=numbers, sources=("lab",),
    )  # fmt: skip


def exchanges(rows: int) -> dict[str, Array]:
    """Return dispatches of 4,096 tokens over two, three, … domains of eight."""
    domains = np.arange(2.0, 2.0 + rows)
    same = {"tokens": 4096.0, "hidden": 7168.0, "top_k": 8.0, "experts": 256.0, "sms": 24.0,
            "domains_per_token": 99.0, "network_bytes_per_s": 5e10}  # fmt: skip
    samples = {name: np.full(rows, value) for name, value in same.items()}
    return {**samples, "ranks": 8 * domains, "domains": domains}


TRUE = FORWARDED.start(NEAR, "bf16")


def fitted(hardware: str, library: str, variant: str, rows: int = 50) -> tuple[Group, Curve]:
    """Return a group with a curve that knows the parameters."""
    curve = Curve(
        family="forwarded", dtype="bf16", variant=variant, parameters=TRUE, surface=None, rows=rows,
        median_error=0.02, p90_error=0.05, source=f"{library} on {hardware}",
    )  # fmt: skip
    return group(hardware, library, "forwarded", variant, exchanges(6), TRUE), curve


DISPATCH, COMBINE = "high_throughput dispatch over nodes", "high_throughput combine over nodes"


def lender(variant: str, library: str, *candidates: tuple[Group, Curve]) -> str:
    few = group("near", library, "forwarded", variant, exchanges(3), TRUE)
    ((_, curve),) = from_few([few], candidates, CHIPS)
    return curve.source


def test_the_same_phase_comes_before_the_same_library() -> None:
    candidates = fitted("near", "mine", COMBINE), fitted("far", "theirs", DISPATCH)
    assert "theirs on far" in lender(DISPATCH, "mine", *candidates)


def test_the_same_library_comes_before_the_nearest_device() -> None:
    candidates = fitted("near", "theirs", DISPATCH), fitted("far", "mine", DISPATCH)
    assert "mine on far" in lender(DISPATCH, "mine", *candidates)


def test_the_nearest_device_lends_and_other_makers_come_last() -> None:
    candidates = [fitted(name, "theirs", DISPATCH) for name in ("other", "far", "near")]
    assert "theirs on near" in lender(DISPATCH, "mine", *candidates)
    assert "theirs on far" in lender(DISPATCH, "mine", *candidates[:2])
    assert "theirs on other" in lender(DISPATCH, "mine", candidates[0])


def test_a_network_of_another_kind_is_still_between_nodes() -> None:
    candidates = (
        fitted("near", "mine", "high_throughput dispatch"),
        fitted("near", "theirs", DISPATCH),
    )
    assert "theirs" in lender("high_throughput dispatch over EFA", "mine", *candidates)


def test_three_rows_move_what_they_can_and_tell_their_error() -> None:
    """The true rate of the network is three quarters of the relative's, the rest is alike."""
    slower = {**TRUE, "away_fraction": 0.75 * TRUE["away_fraction"]}
    few = group("near", "mine", "forwarded", DISPATCH, exchanges(3), slower)
    ((_, curve),) = from_few([few], [fitted("near", "mine", DISPATCH)], CHIPS)
    lent = seconds_of(FORWARDED, fitted("near", "mine", DISPATCH)[1], few.samples, NEAR)
    before = np.abs(lent / few.seconds - 1)
    after = np.abs(seconds_of(FORWARDED, curve, few.samples, NEAR) / few.seconds - 1)
    assert np.median(before) > 0.15
    assert np.median(after) < 0.25 * np.median(before)
    assert curve.median_error < 0.5 * np.median(before)  # each row left out of its own fit
    assert (curve.rows, curve.variant) == (3, DISPATCH)


def test_a_single_row_tells_the_error_of_the_relative() -> None:
    slower = {**TRUE, "away_fraction": 0.75 * TRUE["away_fraction"]}
    few = group("near", "mine", "forwarded", DISPATCH, exchanges(1), slower)
    relative = fitted("near", "mine", DISPATCH)
    ((_, curve),) = from_few([few], [relative], CHIPS)
    lent = seconds_of(FORWARDED, relative[1], few.samples, NEAR)
    assert curve.median_error == pytest.approx(abs(float(lent[0]) / float(few.seconds[0]) - 1))


def test_few_rows_of_the_same_library_lend_where_libraries_send_by_ways_of_their_own() -> None:
    # two published rows on two devices, of a library that takes four times as long to start
    true = DIRECT.start(NEAR, "bf16")
    slow = {**true, "floor_s": 4 * true["floor_s"], "away_floor_s": 4 * true["away_floor_s"]}
    variant = "low_latency dispatch over nodes"
    few = [
        group(name, "mine", "direct", variant, {**exchanges(1), "tokens": np.array([1.0])}, slow)
        for name in ("near", "far")
    ]
    curve = replace(fitted("near", "theirs", variant)[1], family="direct", parameters=true)
    theirs = group("near", "theirs", "direct", variant, exchanges(6), true)
    found = from_few(few, [(theirs, curve)], CHIPS)
    alone = from_few(few[:1], [(theirs, curve)], CHIPS)
    assert alone[0][1].median_error > 0.5
    assert all(one.median_error < 0.5 * alone[0][1].median_error for _, one in found)
    # and never to itself: a single one has but the other library to go by
    assert "theirs on near" in alone[0][1].source


def test_the_same_fabric_comes_before_the_same_library() -> None:
    candidates = (
        fitted("near", "mine", "high_throughput dispatch over EFA"),
        fitted("near", "theirs", DISPATCH),
    )
    assert "theirs" in lender(DISPATCH, "mine", *candidates)


def test_companions_without_a_relative_are_fitted_together() -> None:
    family = next(one for one in COLLECTIVES if one.name == "alltoall_across")
    true = {**family.start(NEAR, "bf16"), "away_fraction": 0.6, "away_step_s": 1e-6}
    groups = []
    for hardware, rate, domains in (("near", 5e10, [2.0, 4.0, 8.0]), ("far", 1e11, [4.0, 32.0])):
        count = len(domains)
        samples = {
            "bytes": np.full(count, 6.7e7), "domains": np.array(domains),
            "ranks": 8 * np.array(domains), "network_bytes_per_s": np.full(count, rate),
        }  # fmt: skip
        groups.append(group(hardware, "nccl", family.name, "", samples, true))
    found = from_few(groups, [], CHIPS)
    assert len(found) == 2
    assert found[0][1].parameters == found[1][1].parameters
    assert found[0][1].rows == 5
    for one, curve in found:
        errors = seconds_of(family, curve, one.samples, CHIPS[one.hardware]) / one.seconds - 1
        assert np.max(np.abs(errors)) < 0.12


def test_companions_of_another_fabric_begin_where_the_larger_pool_ends() -> None:
    """One row on InfiniBand, 1.5 times as slow as five on EFA: it moves their curve towards it."""
    family = next(one for one in COLLECTIVES if one.name == "alltoall_across")
    true = {**family.start(NEAR, "bf16"), "away_fraction": 0.6}
    slower = {**true, "away_fraction": 0.4}
    found = []
    for fabric, domains, parameters in (
        ("infiniband", [8.0], slower), ("efa", [2.0, 4.0, 8.0, 16.0, 32.0], true),
    ):  # fmt: skip
        count = len(domains)
        samples = {
            "bytes": np.full(count, 6.7e7), "domains": np.array(domains),
            "ranks": 8 * np.array(domains), "network_bytes_per_s": np.full(count, 5e10),
        }  # fmt: skip
        found.append(group("near", "nccl", family.name, fabric, samples, parameters))
    curves = {one.variant: curve for one, curve in from_few(found, [], CHIPS)}
    assert (curves["efa"].rows, curves["infiniband"].rows) == (5, 1)
    assert (
        curves["infiniband"].parameters["away_fraction"] < curves["efa"].parameters["away_fraction"]
    )
    # left out, the row gets what the others say of it: two thirds of its time
    assert curves["infiniband"].median_error == pytest.approx(1 / 3, abs=0.05)


def test_what_has_neither_gets_no_curve() -> None:
    few = group("near", "mine", "forwarded", DISPATCH, exchanges(3), TRUE)
    assert from_few([few], [], CHIPS) == []
