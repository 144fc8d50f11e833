"""Seconds of our operators by fitted curves; None where no curve fits, and the roofline stands."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from moesim.cost import calibrated_kernels as calibrated
from moesim.cost.curves import Array, Family, Samples, predict_s, uncertainty
from moesim.cost.families import attention, gemm, mla, moe
from moesim.cost.families.attention_work import causal_pairs, core_samples
from moesim.cost.families.elementwise import BYTES_PER_COLUMN, ELEMENTWISE
from moesim.cost.families.moe_loads import summarise
from moesim.cost.fitted import Found, Kernels
from moesim.cost.times import Known
from moesim.model.operators import (
    AttentionCore,
    Compute,
    Gemm,
    GroupedGemm,
    Pointwise,
    read_bytes,
    written_bytes,
)

_EXTRA_GRADIENT_BYTES = 6.0
"""A weight gradient is read and written in fp32 where a product writes two bytes."""

_HOPPER_UNITS = ("fp8",)
"""Devices whose tensor cores have fp8 run FlashAttention-3 or newer kernels."""

_POINTWISE = {
    "attention_norm": "rmsnorm", "cross_attention_norm": "rmsnorm", "ffn_norm": "rmsnorm",
    "final_norm": "rmsnorm", "encoder_norm": "rmsnorm", "mtp_norm": "rmsnorm", "rope": "rope",
    "ffn_activation": "silu_and_mul", "expert_activation": "silu_and_mul",
    "embedding": "embedding",
}  # fmt: skip
"""Which measured kernel an operator is."""

_CASTS = {
    "_cast": "fp8_quantize", "_cast_grad": "fp8_quantize",
    "_amax": "fp8_amax_and_scale", "_amax_grad": "fp8_amax_and_scale",
}  # fmt: skip
"""Endings of casts around fp8 products, see quantisation.py: a measured one moves as many bytes."""


def kernel_s(operator: Compute, kernels: Kernels) -> Known | None:
    """Return what is known of one execution of `operator`, or None without a curve."""
    if operator not in kernels.memo:
        kernels.memo[operator] = _asked(operator, kernels)
    return kernels.memo[operator]


def _asked(operator: Compute, kernels: Kernels) -> Known | None:
    match operator:
        case Gemm():
            return _gemm(operator, kernels)
        case GroupedGemm():
            return _grouped(operator, kernels)
        case AttentionCore():
            return _attention(operator, kernels)
        case Pointwise():
            return _pointwise(operator, kernels)
        case _:
            return None


def _gemm(operator: Gemm, kernels: Kernels) -> Known | None:
    found = kernels.first(operator.dtype, ("gemm", ""), ("simple_gemm", ""))
    if found is None:
        return None
    if found.curve.family == "simple_gemm":
        return calibrated.known(found, calibrated.gemm_columns(operator), kernels)
    m, n, k = float(operator.m), float(operator.n), float(operator.k)
    seconds = gemm.scalar_s(m, n, k, kernels.chip, found.curve.dtype, found.curve)
    seconds += _accumulation_s(m * n if operator.accumulates else 0.0, kernels)
    samples = columns({"m": m, "n": n, "k": k})
    return _known(seconds, gemm.GEMM, found, samples)


def columns(values: Mapping[str, float]) -> dict[str, Array]:
    """Return one sample as arrays of length one."""
    return {name: np.array([float(value)]) for name, value in values.items()}


def _known(seconds: float, family: Family, found: Found, samples: Samples) -> Known:
    spread = float(uncertainty(family, found.curve, samples)[0])
    return Known(seconds, found.tag, spread, found.profile)


def _predicted(family: Family, found: Found, samples: Samples, kernels: Kernels) -> Known:
    seconds = float(predict_s(family, found.curve, samples, kernels.chip)[0])
    return _known(seconds, family, found, samples)


def accumulation_s(elements: float, bandwidth_bytes_per_s: float) -> float:
    """Return what a product takes longer that adds its weight gradient to an fp32 buffer."""
    return elements * _EXTRA_GRADIENT_BYTES / bandwidth_bytes_per_s


def _accumulation_s(elements: float, kernels: Kernels) -> float:
    return accumulation_s(elements, kernels.chip.memory_bandwidth_bytes_per_s)


def _grouped(operator: GroupedGemm, kernels: Kernels) -> Known | None:
    rows = [count for count in operator.rows if count]
    if not rows:
        return Known(0.0, "fitted", 0.0)
    if len(operator.rows) == 1:
        return _gemm(_alone(operator, rows[0]), kernels)
    found = kernels.first(
        operator.dtype, ("grouped_gemm", ""), ("moe", ""),
        ("simple_grouped_gemm", "wgrad" if operator.accumulates else "grouped_mm"),
        *(() if operator.accumulates else (("simple_grouped_gemm", "loop"),)),
    )  # fmt: skip
    if found is None:
        return _one_by_one(operator, rows, kernels) if operator.accumulates else None
    if found.curve.family == "simple_grouped_gemm":
        return calibrated.known(found, calibrated.grouped_columns(operator), kernels)
    # the weight gradient has the same FLOP: rows are summed over instead of the inner width
    seconds = moe.grouped_gemm_s(rows, operator.n, operator.k, kernels.chip, found.curve)
    weights = float(len(rows) * operator.n * operator.k) if operator.accumulates else 0.0
    each = {**summarise(rows), "n": operator.n, "k": operator.k}
    seconds += _accumulation_s(weights, kernels)
    return _known(seconds, _products_of(found), found, columns(each))


def _products_of(found: Found) -> Family:
    """Return the family of one product with the places that it has on the curve's surface."""
    family = moe.MOE if found.curve.family == moe.MOE.name else moe.GROUPED_GEMM
    return replace(family, coordinates=lambda samples: moe.product_places(found.curve, samples))


def _alone(operator: GroupedGemm, rows: int) -> Gemm:
    """Return the product of the only expert of a rank."""
    m, n, k = rows, operator.n, operator.k
    if operator.accumulates:
        m, n, k = operator.k, operator.n, rows
    return Gemm(
        name="", module="", input_from="", m=m, n=n, k=k, dtype=operator.dtype,
        accumulates=operator.accumulates,
    )  # fmt: skip


def _one_by_one(operator: GroupedGemm, rows: list[int], kernels: Kernels) -> Known | None:
    """Return the weight gradients of all experts, one product after the other."""
    parts = [_gemm(_alone(operator, count), kernels) for count in rows]
    priced = [part for part in parts if part is not None]
    if len(priced) < len(parts):
        return None
    seconds = sum(part.seconds for part in priced)
    spread = sum(part.seconds * part.uncertainty for part in priced) / seconds
    return replace(priced[0], seconds=seconds, uncertainty=spread)


def _attention(operator: AttentionCore, kernels: Kernels) -> Known | None:
    role = calibrated.attention_role(operator)
    found = kernels.first(operator.dtype, ("attention_prefill", ""), ("simple_attention", role))
    if found is None or not operator.v_dim:
        return None
    if found.curve.family == "simple_attention":
        return calibrated.known(found, calibrated.attention_columns(operator), kernels)
    forward = replace(operator, qk_products=1, v_products=1)
    seen = _latent(forward, kernels) or _prefill(forward, found, kernels)
    return seen if operator.qk_products == 1 else _behind(operator, seen, found, kernels)


def _prefill(operator: AttentionCore, found: Found, kernels: Kernels) -> Known:
    samples = core_samples(operator, float(operator.sequences))
    return _predicted(attention.PREFILL, found, samples, kernels)


def _latent(operator: AttentionCore, kernels: Kernels) -> Known | None:
    """Return multi-head latent attention by its own kernels, where shape and mask are theirs."""
    found = kernels.first(operator.dtype, ("mla_prefill_kernel", ""))
    widths = (operator.qk_dim, operator.v_dim)
    if found is None or widths != (mla.NOPE + mla.ROPE, mla.V):
        return None
    queries, keys = (np.array([n / operator.sequences]) for n in (operator.queries, operator.keys))
    causal = float(causal_pairs(queries, keys)[0]) * operator.sequences
    if operator.kv_heads != operator.heads or abs(operator.pairs / causal - 1) > 1e-6:
        return None
    samples = columns(
        {
            "batch_size": operator.sequences,
            "seq_len": float(queries[0]),
            "past_kv_tokens": float(keys[0] - queries[0]),
            "local_num_heads": operator.heads,
        }
    )
    return _predicted(mla.MLA_PREFILL_KERNEL, found, samples, kernels)


def _behind(operator: AttentionCore, seen: Known, found: Found, kernels: Kernels) -> Known:
    """Return the backward pass: a ratio of the forward pass, launches apart.

    No table measures one, so the forward kernel lends its time.
    """
    rate = attention.FLASH_ATTENTION_2
    if any(dtype in kernels.chip.peak_flop_per_s for dtype in _HOPPER_UNITS):
        rate = attention.FLASH_ATTENTION_3
    launch_s = found.curve.parameters.get("launch_s", 0.0)
    seconds = attention.backward_s(
        np.array([seen.seconds]), launch_s, operator.qk_dim, operator.v_dim, rate
    )
    spread = math.hypot(seen.uncertainty, rate.uncertainty)
    return replace(seen, seconds=float(seconds[0]), tag="transferred", uncertainty=spread)


def _pointwise(operator: Pointwise, kernels: Kernels) -> Known | None:
    """Return a memory-bound kernel that was measured; others differ too much to stand in for it."""
    family = _measured_as(operator.name)
    roles = [("simple_elementwise", calibrated.pointwise_role(operator))]
    if family is not None:
        roles.append((family, ""))
    found = streaming(kernels, operator.dtype, *roles)
    if found is None or not operator.rows:
        return None
    if family is None or found.curve.family == "simple_elementwise":
        return calibrated.known(found, calibrated.pointwise_columns(operator), kernels)
    samples = columns(pointwise_columns(operator, family))
    return _predicted(ELEMENTWISE[family], found, samples, kernels)


def _measured_as(name: str) -> str | None:
    """Return the family of the measured kernel that an operator is, or None."""
    if name.startswith("cross_entropy"):
        return None  # its cast is to fp32
    cast = next((kernel for ending, kernel in _CASTS.items() if name.endswith(ending)), None)
    return cast or _POINTWISE.get(name)


def streaming(kernels: Kernels, dtype: str, *roles: tuple[str, str]) -> Found | None:
    """Return the curve of a kernel bound by memory: its own number format first, then any.

    Only bytes count, and these are the operator's own.
    """
    found = (kernels.first(name, *roles) for name in (dtype, "bf16", "fp32", "fp8"))
    return next((one for one in found if one is not None), None)


def pointwise_columns(operator: Pointwise, family: str) -> dict[str, float]:
    """Return rows, the width that moves as many bytes in the measured kernel, and the bytes."""
    moved = (read_bytes(operator) + written_bytes(operator)) / operator.count
    width = moved / (BYTES_PER_COLUMN[family] * operator.rows)
    return {"rows": operator.rows, "cols": max(1.0, width), "moved_bytes": moved}


def fused_update(moved_bytes: float, kernels: Kernels) -> Known | None:
    """Return an optimizer update that streams `moved_bytes`, or None where AdamW was not measured.

    Its tensors count as one: what each adds is microseconds beside milliseconds.
    """
    adamw = (("simple_elementwise", "adamw_fused"), ("simple_elementwise", "adamw_foreach"))
    found = streaming(kernels, "fp32", *adamw)
    if found is None:
        return None
    return calibrated.known(found, {"items": 1.0, "bytes": moved_bytes}, kernels)
