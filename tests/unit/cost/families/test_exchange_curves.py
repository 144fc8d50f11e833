"""Curves of dispatch and combine: rows and copies by hand, limits, and fits that find the truth."""

import csv
import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.cost.curve_fit import fit_curve, fit_parameters
from moesim.cost.curves import Array, Chip, Family, Samples
from moesim.cost.families.exchange import (
    DIRECT,
    DISTINCT,
    FAMILIES,
    FORWARDED,
    PREPARE,
    bound_s,
    direct_copies,
    distinct_domains,
    distinct_ranks,
    forwarded_copies,
    row_bytes,
    seconds,
)
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
DEEPSEEK = {"hidden": 7168.0, "top_k": 8.0, "experts": 256.0}


def ask(tokens: float, ranks: float = 8, domains: float = 1, **more: float) -> Samples:
    columns = {"tokens": tokens, "ranks": ranks, "domains": domains, **DEEPSEEK, **more}
    if domains > 1:
        columns["network_bytes_per_s"] = 50e9
    return {name: np.array([float(value)]) for name, value in columns.items()}


def start_s(family: Family, samples: Samples, dtype: str = "bf16") -> Array:
    return family.physics(samples, CHIP, dtype, family.start(CHIP, dtype))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bf16", 14336), ("fp8", 7168), ("fp8_block128", 7392), ("nvfp4", 4032)],
)
def test_bytes_of_a_row(dtype: str, expected: int) -> None:
    assert row_bytes(ask(1), dtype) == pytest.approx([expected])
    assert row_bytes(ask(1, row_bytes=5.0), dtype) == pytest.approx([5.0])


def test_copies_forwarded_by_hand() -> None:
    # 2 experts of 4, one on each of 4 ranks in 2 domains: 2 ranks; 2 domains but for 2 of 6 pairs
    samples = ask(1, ranks=4, domains=2, experts=4.0, top_k=2.0)
    assert distinct_ranks(samples) == pytest.approx([2.0])
    assert distinct_domains(samples) == pytest.approx([5 / 3])
    moved, near, away = forwarded_copies(samples)
    assert (moved[0], near[0], away[0]) == pytest.approx(
        (2.0, 2.0 * (1 - 2 / 4), 5 / 3 * (1 - 1 / 2))
    )


def test_copies_sent_straight_by_hand() -> None:
    # 8 copies, 32 ranks in 4 domains: 7 of 32 ranks are near, 24 of 32 away
    near, away = direct_copies(ask(1, ranks=32, domains=4))
    assert (near[0], away[0]) == pytest.approx((8 * 7 / 32, 8 * 3 / 4))


def test_at_most_four_domains_a_token() -> None:
    free = distinct_domains(ask(1, ranks=64, domains=8))
    limited = distinct_domains(ask(1, ranks=64, domains=8, domains_per_token=4.0))
    assert free > 5.0
    assert 3.5 < limited < 4.0


def test_few_experts_and_odd_limits_are_no_error() -> None:
    samples = ask(1, ranks=64, domains=8, experts=2.0, top_k=8.0, domains_per_token=1.0)
    assert np.isfinite(distinct_ranks(samples)).all()


def test_few_sms_move_thirteen_gigabytes_a_second_each() -> None:
    # 4 SMs of 14 GB/s: copies (row + 1000) + 1000 a token; far from the link
    samples = ask(1e9, sms=4.0)
    moved = 1e9 * (distinct_ranks(samples) * (14336 + 1000) + 1000)
    assert start_s(FORWARDED, samples) == pytest.approx(moved / (4 * 1.4e10), rel=0.01)


def test_many_sms_stop_at_the_link() -> None:
    samples = ask(1e9, sms=1e6)
    sent = 1e9 * distinct_ranks(samples) * 7 / 8 * 14336
    assert start_s(FORWARDED, samples) == pytest.approx(sent / (0.7 * 450e9), rel=0.01)


def test_between_domains_the_network_decides() -> None:
    # a token goes to distinct other domains once; 0.9 of 50 GB/s, 1.1 for the fan-out over 4
    samples = ask(1e9, ranks=32, domains=4, sms=1e6)
    away = distinct_domains(samples) * 3 / 4 * 1e9 * 14336 * 1.1 / (0.9 * 50e9)
    assert start_s(FORWARDED, samples) == pytest.approx(away, rel=0.01)


def test_one_token_costs_the_floor() -> None:
    assert start_s(DIRECT, ask(1), "fp8_block128") == pytest.approx([13e-6 + 256 * 1.5e-8], rel=0.1)
    assert start_s(PREPARE, ask(1)) == pytest.approx([1e-5 + 8 * 2e-7], rel=0.01)


def test_eight_experts_leave_most_sms_idle() -> None:
    few = start_s(DIRECT, ask(1024, experts=8.0, top_k=2.0))
    many = start_s(DIRECT, ask(1024, experts=128.0, top_k=2.0))
    # 1024 tokens on 8 blocks: 128 turns of 2 us
    assert few >= 128 * 2e-6
    assert many < few / 2


def test_the_fullest_rank_counts() -> None:
    even, skewed = start_s(DISTINCT, ask(1e7)), start_s(DISTINCT, ask(1e7, skew=2.0))
    assert 1.9 * even < skewed < 2.0 * even


@given(
    family=st.sampled_from(FAMILIES),
    tokens=st.floats(0.1, 1e12),
    factor=st.floats(1.0, 1e3),
    ranks=st.sampled_from([2, 8, 64, 512]),
    top_k=st.integers(1, 16),
    experts=st.sampled_from([1, 8, 256, 4096]),
)
def test_physics_rises_with_tokens_and_stays_above_the_bound(
    family: Family, tokens: float, factor: float, ranks: int, top_k: int, experts: int
) -> None:
    domains = 1 if family in (DISTINCT, PREPARE) else max(1, ranks // 8)
    shape = {"ranks": ranks, "domains": domains, "top_k": top_k, "experts": experts}
    one, more = ask(tokens, **shape), ask(tokens * factor, **shape)
    times = start_s(family, one)
    assert np.isfinite(times).all()
    assert (start_s(family, more) >= times * (1 - 1e-9)).all()
    assert (times >= bound_s(family.name, one, CHIP, "bf16") * (1 - 1e-9)).all()


def grid(**fixed: float) -> Samples:
    tokens, sms = np.meshgrid(2.0 ** np.arange(0, 17), np.array([4.0, 8.0, 24.0]))
    constant = {"ranks": 8.0, **DEEPSEEK, **fixed}
    return {"tokens": tokens.ravel(), "sms": sms.ravel()} | {
        name: np.full(tokens.size, value) for name, value in constant.items()
    }


def test_a_fit_finds_the_rate_of_an_sm() -> None:
    truth = {**FORWARDED.start(CHIP, "bf16"), "sm_bytes_per_s": 1.9e10, "fraction": 0.6}
    truth |= {"floor_s": 4e-5, "sharpness": 1.5}
    samples = grid()
    found = fit_parameters(
        FORWARDED, samples, FORWARDED.physics(samples, CHIP, "bf16", truth), CHIP, "bf16"
    )
    per_byte = [p["sm_bytes_per_s"] / (1 + p["copy_bytes"] / 14336) for p in (found, truth)]
    assert per_byte[0] == pytest.approx(per_byte[1], rel=0.05)
    for name in ("floor_s", "fraction", "sharpness"):
        assert found[name] == pytest.approx(truth[name], rel=0.05)


def test_fitted_seconds_rise_and_keep_the_bound() -> None:
    samples = grid()
    generator = np.random.Generator(np.random.Philox(key=7))
    exact = FORWARDED.physics(samples, CHIP, "bf16", FORWARDED.start(CHIP, "bf16"))
    noisy = exact * np.exp(generator.normal(0, 0.3, len(exact)))
    curve = fit_curve(FORWARDED, samples, noisy, CHIP, "bf16")
    steps = {name: np.full(80, values[0]) for name, values in samples.items()}
    steps["tokens"] = np.geomspace(1, 1e7, 80)
    times = seconds(FORWARDED, curve, steps, CHIP)
    assert (np.diff(times) >= -1e-12).all()
    assert (times >= bound_s("forwarded", steps, CHIP, "bf16")).all()


def test_published_deepep_times_on_unseen_shapes() -> None:
    path = shared("measurements/moe_alltoall.csv.gz")
    with gzip.open(path, "rt") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["hardware"] == "h100_sxm"
            and row["library_version"] == "sglang 0.5.12"
            and row["mode"] == "low_latency"
            and row["phase"] == "dispatch"
        ]
    names = {
        "tokens": "tokens_per_rank",
        "hidden": "hidden_size",
        "top_k": "top_k",
        "experts": "num_experts",
        "ranks": "ep_size",
    }
    columns = {name: np.array([float(row[of]) for row in rows]) for name, of in names.items()}
    times = np.array([float(row["time_us"]) * 1e-6 for row in rows])
    held = (columns["hidden"] == 6144) & (columns["experts"] == 160)
    fitted = {name: values[~held] for name, values in columns.items()}
    asked = {name: values[held] for name, values in columns.items()}
    curve = fit_curve(DIRECT, fitted, times[~held], CHIP, "fp8_block128")
    error = np.abs(seconds(DIRECT, curve, asked, CHIP) / times[held] - 1)
    assert np.median(error) < 0.08
    assert np.quantile(error, 0.9) < 0.2
