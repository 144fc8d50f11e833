"""Operators as samples of curves: which columns, which kernel, what is added by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim.cost.curves import Curve, predict_s, uncertainty
from moesim.cost.families import attention, gemm, mla
from moesim.cost.families.elementwise import ELEMENTWISE
from moesim.cost.fitted import Kernels, kernels_for
from moesim.cost.fitted_kernels import fused_update, kernel_s
from moesim.cost.times import Known
from moesim.hardware.device import device
from moesim.hardware.profiles import load_accelerator
from moesim.model.backward import backward
from moesim.model.operators import AttentionCore, Compute, Gemm, GroupedGemm, Pointwise

LIBRARIES = {
    "gemm": ("trtllm",), "grouped_gemm": ("trtllm",), "attention": ("trtllm",),
    "elementwise": ("vidur-pytorch",),
}  # fmt: skip


@pytest.fixture(scope="module")
def h100() -> Kernels:
    return kernels_for(device(load_accelerator("h100-sxm")), 4.5e11, LIBRARIES)


def asked(operator: Compute, kernels: Kernels) -> Known:
    found = kernel_s(operator, kernels)
    assert found is not None
    return found


def product(m: int, n: int, k: int, **changes: Any) -> Gemm:
    plain = Gemm(name="g", module="mlp", input_from="x", m=m, n=n, k=k, dtype="bf16")
    return replace(plain, **changes)


def experts(*rows: int, **changes: Any) -> GroupedGemm:
    plain = GroupedGemm(
        name="e", module="moe", input_from="x", rows=rows, n=2048, k=4096, dtype="bf16"
    )
    return replace(plain, **changes)


def core(**changes: Any) -> AttentionCore:
    """Two sequences of 4,096 tokens, causal, 32 heads of 128."""
    plain = AttentionCore(
        name="a", module="core_attn", input_from="x", sequences=2, queries=8192, keys=8192,
        own_keys=8192, pairs=2 * 4096 * 4097 / 2, heads=32, kv_heads=32, qk_dim=128, v_dim=128,
        dtype="bf16",
    )  # fmt: skip
    return replace(plain, **changes)


def curve(kernels: Kernels, family: str) -> Curve:
    found = kernels.first("bf16", (family, ""))
    assert found is not None
    return found.curve


def columns(**values: float) -> dict[str, Any]:
    return {name: np.array([float(value)]) for name, value in values.items()}


def test_a_product_is_a_sample_of_its_curve(h100: Kernels) -> None:
    samples = columns(m=4096, n=8192, k=2048)
    mine = curve(h100, "gemm")
    found = asked(product(4096, 8192, 2048), h100)
    assert found.seconds == pytest.approx(predict_s(gemm.GEMM, mine, samples, h100.chip)[0])
    assert found.uncertainty == uncertainty(gemm.GEMM, mine, samples)[0]
    assert (found.tag, found.origin) == ("fitted", "h100-sxm--trtllm")


def test_a_weight_gradient_is_added_to_an_fp32_buffer(h100: Kernels) -> None:
    """Four bytes read and four written instead of two written: 6 more at 3.35 TB/s."""
    plain, added = product(4096, 8192, 512), product(4096, 8192, 512, accumulates=True)
    extra = asked(added, h100).seconds - asked(plain, h100).seconds
    assert extra == pytest.approx(6 * 4096 * 8192 / 3.35e12)


def test_far_outside_of_what_was_measured_the_doubt_grows(h100: Kernels) -> None:
    inside, outside = asked(product(4096, 4096, 4096), h100), asked(product(2**22, 8, 8), h100)
    assert outside.uncertainty > 2 * inside.uncertainty


def test_a_single_expert_is_a_plain_product(h100: Kernels) -> None:
    assert asked(experts(512), h100) == asked(product(512, 2048, 4096), h100)
    (_, grad) = backward(experts(512))
    assert isinstance(grad, GroupedGemm)
    (_, plain) = backward(product(512, 2048, 4096))
    assert isinstance(plain, Gemm)
    assert asked(grad, h100) == asked(plain, h100)


def test_experts_without_rows_cost_nothing(h100: Kernels) -> None:
    assert asked(experts(0, 0), h100).seconds == 0.0
    assert asked(experts(512, 0, 64, 0), h100).seconds == asked(experts(512, 64), h100).seconds


def test_many_small_experts_cost_more_than_one_large(h100: Kernels) -> None:
    assert asked(experts(*[64] * 64), h100).seconds > 1.3 * asked(experts(4096), h100).seconds


def test_attention_is_a_sample_of_its_curve(h100: Kernels) -> None:
    samples = columns(
        batch_size=2, seq_len=4096, past_kv_tokens=0, num_heads=32, num_kv_heads=32, head_dim=128,
        sliding_window=0,
    )  # fmt: skip
    expected = predict_s(attention.PREFILL, curve(h100, "attention_prefill"), samples, h100.chip)[0]
    assert asked(core(), h100).seconds == pytest.approx(expected)


def test_attention_backward_is_a_sourced_ratio_of_forward(h100: Kernels) -> None:
    forward = asked(core(), h100)
    (behind,) = backward(core())
    assert isinstance(behind, AttentionCore)
    assert 2 < asked(behind, h100).seconds / forward.seconds < 4
    # the ratio lies anywhere between 0.65 and 1.01 of the forward rate: half of that, over 0.83
    known = asked(behind, h100)
    assert known.tag == "transferred"
    expected = math.hypot(forward.uncertainty, 0.18 / 0.83)
    assert known.uncertainty == pytest.approx(expected, abs=0.01)


def test_latent_attention_has_its_own_kernel(h100: Kernels) -> None:
    latent = core(heads=128, kv_heads=128, qk_dim=192)
    samples = columns(batch_size=2, seq_len=4096, past_kv_tokens=0, local_num_heads=128)
    expected = predict_s(
        mla.MLA_PREFILL_KERNEL, curve(h100, "mla_prefill_kernel"), samples, h100.chip
    )[0]
    assert asked(latent, h100).seconds == pytest.approx(expected)


@pytest.mark.parametrize("other", [{"pairs": 2.0 * 4096 * 4096}, {"kv_heads": 16}, {"v_dim": 192}])
def test_what_is_not_quite_latent_attention_takes_the_general_kernel(
    h100: Kernels, other: dict[str, Any]
) -> None:
    found = asked(replace(core(heads=128, kv_heads=128, qk_dim=192), **other), h100)
    latent = asked(core(heads=128, kv_heads=128, qk_dim=192), h100)
    assert found.seconds != latent.seconds


def pointwise(
    name: str, rows: float, read: float, written: float, dtype: str = "bf16"
) -> Pointwise:
    return Pointwise(
        name=name, module="m", input_from="x", rows=rows, elements_read=read,
        elements_written=written, elements_saved=0.0, dtype=dtype,
    )  # fmt: skip


def test_a_norm_moves_its_own_bytes_by_the_measured_kernel(h100: Kernels) -> None:
    """Reading and writing two rows of 4,096 bf16 numbers each: 16 KiB a token."""
    operator = pointwise("ffn_norm", 8192, 2 * 8192 * 4096, 2 * 8192 * 4096)
    moved = 8192 * 4 * 4096 * 2
    samples = columns(rows=8192, cols=moved / (8192 * 4), moved_bytes=moved)
    expected = predict_s(ELEMENTWISE["rmsnorm"], curve(h100, "rmsnorm"), samples, h100.chip)[0]
    found = asked(operator, h100)
    assert found.seconds == pytest.approx(expected)
    assert found.tag == "fitted"
    assert found.seconds > moved / 3.35e12


def test_casts_to_fp8_move_their_own_bytes_by_the_measured_kernel() -> None:
    """Block scales of 128: 2 bytes read, two copies of 1 + 4 / 128 written; amax: 2 bytes read."""
    on = kernels_for(device(load_accelerator("h100-sxm")), 4.5e11, {"elementwise": ("trtllm",)})
    rows, width, written = 8192, 4096, 2 * (1 + 4 / 128)
    cast = pointwise("expert_up_cast", rows, rows * width, rows * width * written / 2)
    for name, one, moved in (
        ("fp8_quantize", cast, 2 + written),
        ("fp8_quantize", replace(cast, name="ffn_down_cast_grad"), 2 + written),
        ("fp8_amax_and_scale", pointwise("ffn_up_amax", rows, rows * width, 0.0), 2.0),
    ):
        columns = moved * width / {"fp8_quantize": 3.0, "fp8_amax_and_scale": 2.0}[name]
        found = asked(one, on)
        samples = {
            "rows": np.array([rows]), "cols": np.array([columns]),
            "moved_bytes": np.array([rows * width * moved]),
        }  # fmt: skip
        measured = on.first("fp8", (name, ""))
        assert measured is not None
        (expected,) = predict_s(ELEMENTWISE[name], measured.curve, samples, on.chip)
        assert found.seconds == pytest.approx(float(expected))
    assert kernel_s(replace(cast, name="cross_entropy_cast"), on) is None


def test_a_kernel_that_was_not_measured_has_no_curve(h100: Kernels) -> None:
    """Measured ones differ threefold at the same bytes: none can stand in for another."""
    for name in ("permute", "cross_entropy", "ffn_norm_grad"):
        assert kernel_s(pointwise(name, 8192, 8192 * 4096, 2 * 8192 * 4096), h100) is None
    assert fused_update(30e9, h100) is None


def test_no_curve_no_answer() -> None:
    none = kernels_for(device(load_accelerator("mi300x")), 4.5e11, LIBRARIES)
    for operator in (product(64, 64, 64), experts(8, 8), core(), pointwise("rope", 1, 8, 8)):
        assert kernel_s(operator, none) is None
    assert fused_update(1e9, none) is None
