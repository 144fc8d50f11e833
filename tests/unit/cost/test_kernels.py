"""The roofline on a device of round numbers: 1 PFLOP/s bf16, 2 PFLOP/s fp8, 1 TB/s."""

from dataclasses import replace

import pytest

from moesim.cost.kernels import roofline_s
from moesim.errors import ProfileError
from moesim.model.backward import backward
from moesim.model.operators import AttentionCore, Gemm, GroupedGemm, Pointwise
from tests.unit.cost.machines import IDEAL, ROUND


def _gemm(m: int, n: int, k: int, dtype: str = "bf16") -> Gemm:
    return Gemm(name="g", module="mlp", input_from="x", m=m, n=n, k=k, dtype=dtype)


def test_large_product_is_bound_by_compute() -> None:
    # 2 * 8192^3 = 1.0995e12 FLOP at 1e15; its 3 * 8192^2 * 2 = 403 MB take 0.4 ms
    assert roofline_s(_gemm(8192, 8192, 8192), ROUND, IDEAL) == pytest.approx(1.099511627776e-3)
    half = replace(IDEAL, gemm_fraction=0.5)
    assert roofline_s(_gemm(8192, 8192, 8192), ROUND, half) == pytest.approx(2.199023255552e-3)
    fp8_s = roofline_s(_gemm(8192, 8192, 8192, "fp8"), ROUND, IDEAL)
    assert fp8_s == pytest.approx(0.549755813888e-3)


def test_thin_product_is_bound_by_memory() -> None:
    # one row: 4096 in, 4096 out, 4096^2 weights, two bytes each
    moved = 2 * (4096 + 4096 + 4096 * 4096)
    assert roofline_s(_gemm(1, 4096, 4096), ROUND, IDEAL) == pytest.approx(moved / 1e12)
    slow = replace(IDEAL, memory_fraction=0.8)
    assert roofline_s(_gemm(1, 4096, 4096), ROUND, slow) == pytest.approx(moved / 0.8e12)


def test_fp8_reads_one_byte_and_writes_two() -> None:
    moved = 1 * (4096 + 4096 * 4096) + 2 * 4096
    assert roofline_s(_gemm(1, 4096, 4096, "fp8"), ROUND, IDEAL) == pytest.approx(moved / 1e12)


def test_experts_without_rows_are_not_read() -> None:
    # two of four experts have a row each: two matrices of 1000 x 1000
    grouped = GroupedGemm(
        name="g", module="moe", input_from="x", rows=(1, 0, 1, 0), n=1000, k=1000, dtype="bf16"
    )
    moved = 2 * (2 * 1000 * 1000 + 2 * 1000 + 2 * 1000)
    assert roofline_s(grouped, ROUND, IDEAL) == pytest.approx(moved / 1e12)
    nothing = replace(grouped, rows=(0, 0))
    assert roofline_s(nothing, ROUND, IDEAL) == 0.0


def _attention() -> AttentionCore:
    return AttentionCore(
        sequences=1,
        name="a", module="core_attn", input_from="qkv", queries=4096, keys=4096, own_keys=4096,
        pairs=4096 * 4097 / 2, heads=16, kv_heads=16, qk_dim=128, v_dim=128, dtype="bf16",
    )  # fmt: skip


def test_attention_by_hand() -> None:
    """One causal sequence of 4096 with 16 heads of 128: 4096 * 4097 / 2 pairs per head.

    Two products of 2 * 128 FLOP per pair and head: 6.87e10 FLOP, 69 us at 1 PFLOP/s.
    """
    core = _attention()
    flop = 2 * 2 * 128 * 16 * 4096 * 4097 / 2
    assert roofline_s(core, ROUND, IDEAL) == pytest.approx(flop / 1e15)
    slow = replace(IDEAL, attention_fraction=0.5)
    assert roofline_s(core, ROUND, slow) == pytest.approx(2 * flop / 1e15)


def test_backward_attention_reads_its_inputs_once() -> None:
    """Queries, keys, values, output and its gradient in, three gradients out: 8 * 16.8 MB.

    At 1 TB/s that is 134 us, less than the 172 us of five products where forward has two.
    """
    (grad,) = backward(_attention())
    assert isinstance(grad, AttentionCore)
    flop = 5 * 2 * 128 * 16 * 4096 * 4097 / 2
    assert roofline_s(grad, ROUND, IDEAL) == pytest.approx(flop / 1e15)


def _experts(rows: tuple[int, ...], n: int, k: int) -> GroupedGemm:
    return GroupedGemm(name="g", module="moe", input_from="x", rows=rows, n=n, k=k, dtype="bf16")


def test_a_single_expert_is_a_plain_product() -> None:
    # 2 * 8192^3 FLOP at 1e15, half of that for plain products and a quarter for grouped ones
    software = replace(IDEAL, gemm_fraction=0.5, grouped_gemm_fraction=0.25)
    product_s = 2 * 8192**3 / 1e15
    one, two = _experts((8192,), 8192, 8192), _experts((4096, 4096), 8192, 8192)
    assert roofline_s(one, ROUND, software) == pytest.approx(product_s / 0.5)
    assert roofline_s(two, ROUND, software) == pytest.approx(product_s / 0.25)


def test_weight_gradients_are_added_to_an_fp32_buffer() -> None:
    """One token: [4096, 1] times [1, 4096].

    Input and gradient are read at two bytes; each of 4096^2 sums is read and written at four.
    """
    moved = 2 * (4096 + 4096) + (4 + 4) * 4096 * 4096
    wgrad = backward(_gemm(1, 4096, 4096))[1]
    assert isinstance(wgrad, Gemm)
    assert roofline_s(wgrad, ROUND, IDEAL) == pytest.approx(moved / 1e12)
    # two of three experts have a token each, and only their sums are touched
    grouped = backward(_experts((1, 0, 1), 4096, 4096))[1]
    assert isinstance(grouped, GroupedGemm)
    assert roofline_s(grouped, ROUND, IDEAL) == pytest.approx(2 * moved / 1e12)


def test_weight_gradient_of_one_expert_has_the_waves_of_a_plain_product() -> None:
    """[8192, 100] times [100, 8192]: the 100 rows are the inner dimension, padded by no tile.

    128 * 128 tiles of 64 x 64 on 132 units are 124.1 waves, so 125 at most: 0.7 % of padding.
    """
    device = replace(ROUND, compute_units=132, memory_bandwidth_bytes_per_s=1e18)
    plain, grouped = backward(_gemm(100, 8192, 8192))[1], backward(_experts((100,), 8192, 8192))[1]
    assert isinstance(plain, Gemm)
    assert isinstance(grouped, GroupedGemm)
    plain_s = roofline_s(plain, device, IDEAL)
    assert plain_s <= 2 * 100 * 8192**2 / 1e15 * 125 / (128 * 128 / 132) * (1 + 1e-9)
    assert roofline_s(grouped, device, IDEAL) == pytest.approx(plain_s)


def test_pointwise_and_launch() -> None:
    copy = Pointwise(
        name="p", module="layernorm", input_from="x", rows=1e3, elements_read=3e6,
        elements_written=1e6, elements_saved=0.0, dtype="bf16", count=2,
    )  # fmt: skip
    # 4e6 elements of two bytes, twice, and two launches of 1 us
    launched = replace(IDEAL, kernel_launch_s=1e-6)
    assert roofline_s(copy, ROUND, launched) == pytest.approx(16e-6 + 2e-6)


def test_a_peak_that_is_missing_is_an_error() -> None:
    with pytest.raises(ProfileError, match="fp16"):
        roofline_s(_gemm(8, 8, 8, "fp16"), ROUND, IDEAL)
