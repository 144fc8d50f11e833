"""Curves of collectives: bytes by hand, limits, protocol steps, and a fit that finds its truth."""

import csv
import gzip
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.cost.curve_fit import fit_curve, fit_parameters
from moesim.cost.curves import Array, Chip, Curve, Family, Samples
from moesim.cost.families.collectives import (
    ALL_REDUCE,
    COLLECTIVES,
    FAMILIES,
    away_bytes,
    bound_s,
    in_switch_bytes,
    near_bytes,
    seconds,
)
from moesim.cost.families.custom_all_reduce import CUSTOM_ALL_REDUCE
from moesim.cost.surface import Axis, Surface
from tests.shared_files import shared

CHIP = Chip(
    name="H100",
    vendor="nvidia",
    peak_flop_per_s={"bf16": 989e12},
    memory_bandwidth_bytes_per_s=3.35e12,
    compute_units=132,
    l2_bytes=50e6,
    link_bytes_per_s=450e9,
)
BY_NAME = {family.name: family for family in FAMILIES}


def group(size: float, ranks: float, domains: float = 1.0) -> Samples:
    columns = {"bytes": size, "ranks": ranks, "domains": domains, "network_bytes_per_s": 50e9}
    return {name: np.array([value]) for name, value in columns.items()}


def start_s(name: str, samples: Samples) -> Array:
    family = BY_NAME[name]
    return family.physics(samples, CHIP, "bf16", family.start(CHIP, "bf16"))


@pytest.mark.parametrize(
    ("collective", "near", "away"),
    [
        # 32 ranks, 4 domains of 8, 64 MB; in MB
        ("all_reduce", 2 * 64 * 7 / 8, 2 * 3 / 4 * 64 / 8),
        ("all_gather", 64 * 7 / 8, 3 / 4 * 64 / 8),
        ("reduce_scatter", 64 * 7 / 8, 3 / 4 * 64 / 8),
        ("alltoall", 64 * 7 / 32, 64 * 24 / 32),
        ("broadcast", 64, 64 / 8),
        ("send", 0, 64),
    ],
)
def test_bytes_inside_and_between_domains(collective: str, near: float, away: float) -> None:
    samples = group(64e6, 32, 4)
    assert near_bytes(collective, samples) == pytest.approx([near * 1e6])
    assert away_bytes(collective, samples) == pytest.approx([away * 1e6])


def test_one_domain_sends_nothing_away_and_needs_no_network() -> None:
    samples = {"bytes": np.array([1e6]), "ranks": np.array([8.0])}
    for collective in COLLECTIVES:
        assert away_bytes(collective, samples) == pytest.approx([0.0])
        assert bound_s(collective, samples, CHIP) > 0.0
    assert in_switch_bytes(samples) == pytest.approx([1.125e6])


@pytest.mark.parametrize("collective", ["all_gather", "reduce_scatter", "alltoall"])
def test_large_messages_move_at_the_reached_rate(collective: str) -> None:
    # bytes (n-1)/n at 0.8 of the link; the ramp has died out at 64 TB
    size = 64e12
    expected = size * 7 / 8 / (0.8 * 450e9)
    assert start_s(collective, group(size, 8)) == pytest.approx([expected], rel=1e-3)


def test_small_messages_cost_the_floor() -> None:
    # 5 us and 7 steps of 1 us; one byte adds nothing that shows
    assert start_s("all_gather", group(1.0, 8)) == pytest.approx([12e-6], rel=1e-2)


def test_a_switch_that_reduces_beats_the_ring_from_four_ranks_on() -> None:
    fitted = {**BY_NAME["all_reduce"].start(CHIP, "bf16"), "in_switch_fraction": 0.8}
    large = group(1e12, 8)
    moved = 1e12 * (1 + 1 / 8) / (0.8 * 450e9)
    physics = BY_NAME["all_reduce"].physics
    assert physics(large, CHIP, "bf16", fitted) == pytest.approx([moved], rel=1e-2)
    pair = 1e12 / (0.8 * 450e9)
    assert physics(group(1e12, 2), CHIP, "bf16", fitted) == pytest.approx([pair], rel=1e-2)


def test_between_domains_the_slower_tier_counts() -> None:
    # 8 domains: 2 * 7/8 * B/8 at 0.85 of 50 GB/s, times 1 + 0.05 * 3 for the fan-out
    size = 1e15
    expected = 2 * 7 / 8 * size / 8 * 1.15 / (0.85 * 50e9)
    assert start_s("all_reduce_across", group(size, 64, 8)) == pytest.approx([expected], rel=1e-2)


def test_beyond_one_domain_the_network_must_be_known() -> None:
    with pytest.raises(KeyError):
        bound_s(
            "send", {"bytes": np.ones(1), "ranks": np.ones(1) * 2, "domains": np.ones(1) * 2}, CHIP
        )


def custom(fitted: dict[str, float], size: float, ranks: float) -> float:
    return float(CUSTOM_ALL_REDUCE.physics(group(size, ranks), CHIP, "bf16", fitted)[0])


def test_one_shot_two_shots_and_the_library() -> None:
    fitted = {**CUSTOM_ALL_REDUCE.start(CHIP, "bf16"), "two_shot_bytes": 1.5e6}
    # 3 us and 7 peers of 0.15 us; one byte adds nothing
    assert custom(fitted, 1.0, 8) == pytest.approx(4.05e-6, rel=1e-3)
    # 128 KiB of 8: 7 B at 0.7 of 450 GB/s; 512 KiB: 3 us more and 14/8 B at 0.75
    one = 4.05e-6 + 7 * 2**17 / 315e9
    assert custom(fitted, 2.0**17, 8) == pytest.approx(one, rel=1e-2)
    two = 7.05e-6 + 1.75 * 2**19 / 337.5e9
    assert custom(fitted, 2.0**19, 8) == pytest.approx(two, rel=1e-2)
    # two ranks have nobody to share with: one shot up to the library
    pair = 3.15e-6 + 2**22 / 315e9
    assert custom(fitted, 2.0**22, 2) == pytest.approx(pair, rel=1e-2)
    # 1 TB of 8 in a switch that reduces: 9/8 B at 0.65, less than the ring's 14/8 at 0.75
    assert custom(fitted, 1e12, 8) == pytest.approx(1.125e12 / (0.65 * 450e9), rel=1e-2)


def test_a_host_hides_what_is_shorter_than_its_launch() -> None:
    eager = {**CUSTOM_ALL_REDUCE.start(CHIP, "bf16"), "host_s": 4e-5}
    assert custom(eager, 1.0, 8) == pytest.approx(4e-5, rel=1e-3)


def test_a_limit_may_fall_with_the_ranks() -> None:
    fitted = {**CUSTOM_ALL_REDUCE.start(CHIP, "bf16"), "library_bytes": 6e6, "library_power": 1.0,
              "two_shot_bytes": 1e12, "library_s": 1.0}  # fmt: skip
    # 6 MB of 2, 1.5 MB of 8: one second of the library shows on which side a size is
    assert custom(fitted, 2e6, 2) < 1e-3 < custom(fitted, 20e6, 2)
    assert custom(fitted, 0.5e6, 8) < 1e-3 < custom(fitted, 6e6, 8)


def test_custom_kernels_fitted_before_keep_their_times() -> None:
    former = {
        "floor_s": 3e-6, "step_s": 2e-7, "second_shot_s": 2e-6, "library_s": 5e-6,
        "library_bytes": 8e6, "host_s": 1e-9, "one_shot_fraction": 0.6, "fraction": 0.7,
        "sharpness": 1.0,
    }  # fmt: skip
    assert custom(former, 1.0, 8) == pytest.approx(3e-6 + 7 * 2e-7, rel=1e-3)
    assert custom(former, 1e13, 8) == pytest.approx(1.75e13 / (0.7 * 450e9), rel=1e-3)


sizes = st.floats(1e-3, 1e18)
counts = st.sampled_from([2.0, 4.0, 8.0, 16.0, 72.0, 1024.0])


BY_SWITCHES = (ALL_REDUCE, CUSTOM_ALL_REDUCE)
WITHOUT_CHANGE = [family for family in FAMILIES if family not in BY_SWITCHES]
"""Families whose physics rises by itself; all-reduces change to kernels of another rate."""


def at_start(family: Family) -> Curve:
    return Curve(
        family=family.name, dtype="bf16", variant="", parameters=family.start(CHIP, "bf16"),
        surface=None, rows=0, median_error=0.0, p90_error=0.0, source="",
    )  # fmt: skip


@given(family=st.sampled_from(WITHOUT_CHANGE), size=sizes, ranks=counts, factor=st.floats(1.0, 1e4))
def test_physics_rises_with_bytes_and_stays_above_the_link(
    family: Family, size: float, ranks: float, factor: float
) -> None:
    domains = max(1.0, ranks / 8) if family.name.endswith("_across") else 1.0
    one, more = start_s(family.name, group(size, ranks, domains)), start_s(
        family.name, group(size * factor, ranks, domains)
    )  # fmt: skip
    assert np.isfinite(one).all()
    assert (more >= one * (1 - 1e-9)).all()
    name = family.name.removesuffix("_across")
    bound = bound_s(name, group(size, ranks, domains), CHIP, in_switch=True)
    assert (one >= bound * (1 - 1e-9)).all()


@settings(deadline=None)
@given(
    family=st.sampled_from(BY_SWITCHES), size=st.floats(1.0, 1e12), ranks=counts,
    factor=st.floats(1.0, 1e4),
)  # fmt: skip
def test_an_all_reduce_rises_with_bytes_and_stays_above_the_link(
    family: Family, size: float, ranks: float, factor: float
) -> None:
    both = {"bytes": np.array([size, size * factor]), "ranks": np.array([ranks, ranks])}
    times = seconds(family, at_start(family), both, CHIP)
    assert times[1] >= times[0] * (1 - 1e-9)
    assert (times >= bound_s("all_reduce", both, CHIP, in_switch=True) * (1 - 1e-9)).all()


def test_each_protocol_of_an_all_reduce_has_its_latency_and_rate() -> None:
    fitted = {
        **ALL_REDUCE.start(CHIP, "bf16"),
        "in_switch_s": 1.0, "wide_bytes": 4e3, "switch_bytes": 1e6, "sharpness": 8.0,
    }  # fmt: skip
    asked = {"bytes": np.array([1e3, 4e5, 4e9]), "ranks": np.array([4.0, 4.0, 4.0])}
    found = ALL_REDUCE.physics(asked, CHIP, "bf16", fitted)
    # 3 hops of 1 us on 5 us, then 2 us and 3 hops of 0.3 us more; wire 1.5 B at 1/4 of 450 GB/s
    low = 8e-6 + 1.5e3 / 112.5e9
    wide = 8e-6 + 2.9e-6 + 6e5 / 112.5e9
    simple = 6e9 / (0.8 * 450e9)  # 29 us of latency do not show beside 17 ms
    assert found == pytest.approx([low, wide, simple], rel=1e-3)


def test_a_curve_laid_out_by_whole_messages_is_read_so() -> None:
    # +10 % at 1 MiB of 8 ranks, where a surface by shares of a rank has 128 KiB
    old = Surface((Axis("log2_bytes", (19.0, 20.0, 21.0)), Axis("log2_ranks", (3.0,))),
                  (0.0, 0.0953, 0.0))  # fmt: skip
    family = BY_NAME["all_gather"]
    plain = at_start(family)
    asked = group(2.0**20, 8)
    ratio = seconds(family, replace(plain, surface=old), asked, CHIP) / seconds(
        family, plain, asked, CHIP
    )
    assert ratio == pytest.approx([1.1], rel=1e-3)
    new = Surface((Axis("log2_bytes_per_rank", (16.0, 17.0, 18.0)), old.axes[1]), old.values)
    assert seconds(family, replace(plain, surface=new), asked, CHIP) == pytest.approx(
        seconds(family, replace(plain, surface=old), asked, CHIP)
    )


def test_an_all_reduce_fitted_before_protocols_were_told_apart_keeps_its_times() -> None:
    former = {
        "floor_s": 5e-6, "step_s": 1e-6, "simple_s": 5e-6, "simple_step_s": 2e-6,
        "switch_bytes": 5e5, "fraction": 0.8, "sharpness": 1.0, "in_switch_s": 1e-3,
        "in_switch_fraction": 0.5,
    }  # fmt: skip
    # ring: 5 + 7 us, Simple 5 + 14 us, 14/8 B at 0.8 of 450 GB/s
    large = ALL_REDUCE.physics(group(1e9, 8), CHIP, "bf16", former)
    assert large == pytest.approx([31e-6 + 1.75e9 / 360e9], rel=1e-3)


@given(collective=st.sampled_from(["all_gather", "reduce_scatter", "alltoall"]), size=sizes)
def test_more_ranks_never_cost_less_while_the_protocol_stays(collective: str, size: float) -> None:
    family = BY_NAME[collective]
    fitted = {**family.start(CHIP, "bf16"), "switch_bytes": 1e25}
    times = [
        float(family.physics(group(size, ranks), CHIP, "bf16", fitted)[0])
        for ranks in (2, 3, 4, 8, 16, 72)
    ]
    assert times == sorted(times)


def measured_grid(family: Family, truth: dict[str, float], noise: float) -> tuple[Samples, Array]:
    size, ranks = (
        grid.ravel() for grid in np.meshgrid(2.0 ** np.arange(9, 30), np.array([2.0, 4.0, 8.0]))
    )
    samples = {"bytes": size, "ranks": ranks}
    generator = np.random.Generator(np.random.Philox(key=5))
    exact = family.physics(samples, CHIP, "bf16", truth)
    return samples, exact * np.exp(generator.normal(0, noise, len(size)))


def test_a_fit_finds_the_parameters_that_made_the_times() -> None:
    family = BY_NAME["all_gather"]
    truth = {
        "floor_s": 6e-6,
        "step_s": 0.7e-6,
        "simple_s": 9e-6,
        "simple_step_s": 1e-6,
        "switch_bytes": 8e5,
        "fraction": 0.74,
        "sharpness": 0.9,
    }
    found = fit_parameters(family, *measured_grid(family, truth, 0.0), CHIP, "bf16")
    assert found == pytest.approx(truth, rel=0.02)


def test_a_fit_finds_the_size_at_which_protocols_change() -> None:
    # far from where any single start would look: 64 times above the first, an eighth of the last
    truth = {**ALL_REDUCE.start(CHIP, "bf16"), "switch_bytes": 1.4e6, "simple_s": 6e-5,
             "in_switch_s": 1.0}  # fmt: skip
    size, ranks = (
        grid.ravel() for grid in np.meshgrid(2.0 ** np.arange(9, 30, 0.5), np.array([2.0, 4.0]))
    )
    samples = {"bytes": size, "ranks": ranks}
    times = ALL_REDUCE.physics(samples, CHIP, "bf16", truth)
    found = fit_parameters(ALL_REDUCE, samples, times, CHIP, "bf16")
    assert found["switch_bytes"] == pytest.approx(1.4e6, rel=0.2)
    error = ALL_REDUCE.physics(samples, CHIP, "bf16", found) / times - 1
    assert np.quantile(np.abs(error), 0.9) < 0.05


@settings(max_examples=20, deadline=None)
@given(low=st.floats(1.0, 1e10), factor=st.floats(1.0, 100.0), ranks=st.sampled_from([2.0, 8.0]))
def test_fitted_seconds_rise_though_the_table_is_noisy(
    low: float, factor: float, ranks: float
) -> None:
    curve = NOISY
    both = {"bytes": np.array([low, low * factor]), "ranks": np.array([ranks, ranks])}
    first, second = seconds(BY_NAME["all_gather"], curve, both, CHIP)
    assert second >= first * (1 - 1e-9)
    assert second >= bound_s("all_gather", both, CHIP)[1]


NOISY = fit_curve(
    BY_NAME["all_gather"],
    *measured_grid(BY_NAME["all_gather"], BY_NAME["all_gather"].start(CHIP, "bf16"), 0.5),
    CHIP,
    "bf16",
)
"""A curve of times that scatter by half."""


def test_published_nccl_times_on_unseen_sizes() -> None:
    path = shared("measurements/collectives.csv.gz")
    with gzip.open(path, "rt") as file:
        rows = [
            (float(row["bytes"]), float(row["num_gpus"]), float(row["time_us"]) * 1e-6)
            for row in csv.DictReader(file)
            if row["hardware"] == "h100_sxm"
            and row["library_version"] == "2.29.2"
            and row["dtype"] == "fp16"
            and row["collective"] == "reduce_scatter"
        ]
    size, ranks, times = np.array(rows).T
    held = np.random.Generator(np.random.Philox(key=1)).random(len(rows)) < 0.2
    fitted = {"bytes": size[~held], "ranks": ranks[~held]}
    asked = {"bytes": size[held], "ranks": ranks[held]}
    family = BY_NAME["reduce_scatter"]
    curve = fit_curve(family, fitted, times[~held], CHIP, "fp16")
    error = np.abs(seconds(family, curve, asked, CHIP) / times[held] - 1)
    assert np.median(error) < 0.08
    assert np.quantile(error, 0.9) < 0.2


def test_no_measured_time_beats_the_bound() -> None:
    # 8 H100, 1 GiB with NVLS: 4.01 ms measured, 4.18 ms is the ring at full rate
    samples = group(2.0**30, 8)
    assert bound_s("all_reduce", samples, CHIP, in_switch=True) < 4.01e-3
    assert bound_s("all_reduce", samples, CHIP) > 4.01e-3
    # 16 H100 on 2 nodes, 16 GiB: 66.13 ms measured, 66.8 ms is the ring inside a node
    assert bound_s("all_reduce", group(2.0**34, 16, 2), CHIP, in_switch=True) < 66.13e-3
