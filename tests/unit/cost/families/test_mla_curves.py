"""Latent attention: the cache by hand, the projections, the absorbed products, bounds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.cost.curve_fit import fit_curve
from moesim.cost.curves import Array, Chip, Family, predict_s
from moesim.cost.families.mla import (
    MLA_ABSORBED_PREFILL_KERNEL,
    MLA_ABSORBED_PREFILL_MODULE,
    MLA_DECODE_KERNEL,
    MLA_DECODE_MODULE,
    MLA_PREFILL_KERNEL,
    MLA_PREFILL_MODULE,
    decode_bound_s,
    prefill_bound_s,
    projection_weights,
)
from moesim.cost.families.mla_bmm import MLA_BMM, bmm_bound_s

CHIP = Chip(
    name="round", vendor="nvidia", peak_flop_per_s={"bf16": 1e15, "fp8": 2e15},
    memory_bandwidth_bytes_per_s=4e12, compute_units=100, l2_bytes=5e7,
)  # fmt: skip
WIDE = replace(CHIP, memory_bandwidth_bytes_per_s=1e13)
FAMILIES = (
    MLA_ABSORBED_PREFILL_KERNEL, MLA_ABSORBED_PREFILL_MODULE, MLA_BMM, MLA_DECODE_KERNEL,
    MLA_DECODE_MODULE, MLA_PREFILL_KERNEL, MLA_PREFILL_MODULE,
)  # fmt: skip


def columns(**values: float) -> dict[str, Array]:
    return {name: np.array([float(value)]) for name, value in values.items()}


def test_decode_of_few_heads_reads_576_numbers_per_token() -> None:
    shape = columns(batch_size=32, kv_tokens=16384, local_num_heads=1)
    earlier = 32 * 16383 * 576 * 2  # the new token and the queries may lie in the L2 cache
    assert decode_bound_s(shape, CHIP, "bf16")[0] == pytest.approx(earlier / 4e12)


def test_decode_of_all_heads_is_bound_by_compute() -> None:
    shape = columns(batch_size=32, kv_tokens=16384, local_num_heads=128)
    work = 2 * 32 * 16384 * 128 * (576 + 512)
    assert decode_bound_s(shape, WIDE, "bf16")[0] == pytest.approx(work / 1e15)


def test_a_cache_in_fp8_may_be_multiplied_in_fp8() -> None:
    shape = columns(batch_size=32, kv_tokens=16384, local_num_heads=128, kv_element_bytes=1)
    work = 2 * 32 * 16384 * 128 * (576 + 512)
    assert decode_bound_s(shape, WIDE, "bf16")[0] == pytest.approx(work / 2e15)


def test_prefill_scores_with_192_and_sums_128() -> None:
    shape = columns(batch_size=1, seq_len=16384, local_num_heads=16)
    work = 2 * 16 * (16384 * 16385 / 2) * (192 + 128)
    assert prefill_bound_s(shape, CHIP, "bf16")[0] == pytest.approx(work / 1e15)


def test_projections_of_all_heads_are_those_of_deepseek_v3() -> None:
    # arXiv 2412.19437: 7168 wide, 128 heads: 187 million weights of attention per layer
    down = 7168 * (1536 + 576)
    up = 1536 * 128 * 192 + 512 * 128 * 256
    assert projection_weights(np.array([128.0]))[0] == down + up + 128 * 128 * 7168


def test_a_module_takes_longer_than_its_kernel() -> None:
    shape = columns(batch_size=64, kv_tokens=4096, local_num_heads=16)
    assert MLA_DECODE_MODULE.bound_s and MLA_DECODE_KERNEL.bound_s
    kernel = MLA_DECODE_KERNEL.bound_s(shape, CHIP, "bf16")[0]
    weights = float(projection_weights(np.array([16.0]))[0]) * 2
    module = MLA_DECODE_MODULE.bound_s(shape, CHIP, "bf16")[0]
    assert module - kernel == pytest.approx(weights / 4e12)


def test_scales_of_narrow_projections_are_no_work_of_the_matrix_unit() -> None:
    assert MLA_PREFILL_MODULE.bound_s and MLA_PREFILL_KERNEL.bound_s
    shape = columns(batch_size=1, seq_len=16384, local_num_heads=16)
    kernel = MLA_PREFILL_KERNEL.bound_s(shape, CHIP, "bf16")[0]
    narrow = MLA_PREFILL_MODULE.bound_s(
        {**shape, "projection_element_bytes": np.array([0.5625])}, CHIP, "bf16"
    )[0]
    weights = float(projection_weights(np.array([16.0]))[0])
    # four times the bf16 peak, as for the fp4 matrix units of Blackwell
    assert narrow - kernel == pytest.approx(2 * 16384 * weights / 4e15)


def test_absorbed_products_stream_their_weights() -> None:
    shape = columns(local_num_heads=1024, num_tokens=1)
    moved = 1024 * 128 * 512 * 2 + 1024 * 640 * 2 - 1e8  # less twice the L2 cache
    assert bmm_bound_s(shape, CHIP, "bf16")[0] == pytest.approx(moved / 4e12)


SIZES = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 2048), "seq_len": st.integers(1, 131072),
        "kv_tokens": st.integers(1, 1048576), "local_num_heads": st.sampled_from([1, 5, 16, 128]),
        "num_tokens": st.integers(1, 131072), "projection_element_bytes": st.sampled_from([1, 2]),
        "kv_element_bytes": st.sampled_from([1, 2]),
    }
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, grown=st.sampled_from(["batch_size", "seq_len", "kv_tokens", "num_tokens"]))
def test_finite_above_the_bound_and_monotone(sizes: dict[str, int], grown: str) -> None:
    samples, more = columns(**sizes), columns(**(sizes | {grown: 2 * sizes[grown]}))
    for family in FAMILIES:
        parameters = family.start(CHIP, "bf16")
        seconds = family.physics(samples, CHIP, "bf16", parameters)[0]
        assert family.bound_s is not None
        assert np.isfinite(seconds)
        assert seconds > family.bound_s(samples, CHIP, "bf16")[0]
        assert family.physics(more, CHIP, "bf16", parameters)[0] >= seconds * (1 - 1e-9)


@pytest.mark.parametrize("family", [MLA_DECODE_KERNEL, MLA_BMM], ids=lambda f: str(f.name))
def test_a_curve_returns_what_it_was_fitted_to(family: Family) -> None:
    generator = np.random.Generator(np.random.Philox(key=2))
    samples = {
        name: np.exp2(generator.integers(low, high, 400)).astype(float)
        for name, low, high in [
            ("batch_size", 0, 10), ("kv_tokens", 1, 17), ("num_tokens", 0, 14),
            ("local_num_heads", 0, 8),
        ]
    }  # fmt: skip
    truth = family.start(CHIP, "bf16") | {"launch_s": 9e-6}
    seconds = family.physics(samples, CHIP, "bf16", truth)
    curve = fit_curve(family, samples, seconds, CHIP, "bf16")
    error = np.abs(predict_s(family, curve, samples, CHIP) / seconds - 1)
    assert float(np.median(error)) < 0.01
    assert float(np.quantile(error, 0.9)) < 0.03
