"""Seconds of our operators by fitted curves; None where no curve fits, and the roofline stands."""

from dataclasses import replace

import numpy as np

from moesim.cost.curves import predict_s
from moesim.cost.families import attention, collectives, gemm, moe
from moesim.cost.families.attention_work import core_samples
from moesim.cost.fitted import Found, Kernels
from moesim.cost.times import Tag
from moesim.model.operators import AttentionCore, CollectiveKind, Compute, Gemm, GroupedGemm

_EXTRA_GRADIENT_BYTES = 6.0
"""A weight gradient is read and written in fp32 where a product writes two bytes."""

_HOPPER_UNITS = ("fp8",)
"""Devices whose tensor cores have fp8 run FlashAttention-3 or newer kernels."""


def kernel_s(operator: Compute, kernels: Kernels) -> tuple[float, Tag] | None:
    """Return seconds and tag of one execution of `operator`, or None without a curve."""
    if operator not in kernels.memo:
        kernels.memo[operator] = _asked(operator, kernels)
    return kernels.memo[operator]


def _asked(operator: Compute, kernels: Kernels) -> tuple[float, Tag] | None:
    match operator:
        case Gemm():
            return _gemm(operator, kernels)
        case GroupedGemm():
            return _grouped(operator, kernels)
        case AttentionCore():
            return _attention(operator, kernels)
        case _:
            return None


def _gemm(operator: Gemm, kernels: Kernels) -> tuple[float, Tag] | None:
    found = kernels.curve("gemm", operator.dtype)
    if found is None:
        return None
    m, n, k = float(operator.m), float(operator.n), float(operator.k)
    seconds = gemm.scalar_s(m, n, k, kernels.chip, found.curve.dtype, found.curve)
    return seconds + _accumulation_s(m * n if operator.accumulates else 0.0, kernels), found.tag


def _accumulation_s(elements: float, kernels: Kernels) -> float:
    return elements * _EXTRA_GRADIENT_BYTES / kernels.chip.memory_bandwidth_bytes_per_s


def _grouped(operator: GroupedGemm, kernels: Kernels) -> tuple[float, Tag] | None:
    rows = [count for count in operator.rows if count]
    if not rows:
        return 0.0, "fitted"
    if len(operator.rows) == 1:
        m, n, k = rows[0], operator.n, operator.k
        if operator.accumulates:
            m, n, k = operator.k, operator.n, rows[0]
        alone = Gemm(
            name="", module="", input_from="", m=m, n=n, k=k, dtype=operator.dtype,
            accumulates=operator.accumulates,
        )  # fmt: skip
        return _gemm(alone, kernels)
    found = kernels.curve("grouped_gemm", operator.dtype) or kernels.curve("moe", operator.dtype)
    if found is None:
        return None
    # the weight gradient has the same FLOP: rows are summed over instead of the inner width
    seconds = moe.grouped_gemm_s(rows, operator.n, operator.k, kernels.chip, found.curve)
    weights = float(len(rows) * operator.n * operator.k) if operator.accumulates else 0.0
    return seconds + _accumulation_s(weights, kernels), found.tag


def _attention(operator: AttentionCore, kernels: Kernels) -> tuple[float, Tag] | None:
    found = kernels.curve("attention_prefill", operator.dtype)
    if found is None or not operator.v_dim:
        return None
    forward = replace(operator, qk_products=1, v_products=1)
    seconds = _prefill_s(forward, found, kernels)
    if operator.qk_products == 1:
        return seconds, found.tag
    rate = attention.FLASH_ATTENTION_2
    if any(dtype in kernels.chip.peak_flop_per_s for dtype in _HOPPER_UNITS):
        rate = attention.FLASH_ATTENTION_3
    launch_s = found.curve.parameters.get("launch_s", 0.0)
    behind = attention.backward_s(
        np.array([seconds]), launch_s, operator.qk_dim, operator.v_dim, rate
    )
    return float(behind[0]), found.tag


def _prefill_s(operator: AttentionCore, found: Found, kernels: Kernels) -> float:
    samples = core_samples(operator, float(operator.sequences))
    return float(predict_s(attention.PREFILL, found.curve, samples, kernels.chip)[0])


_COLLECTIVE_NAMES: dict[CollectiveKind, str] = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "all_to_all": "alltoall",
    "send": "send",
}


def collective_s(
    kind: CollectiveKind, payload_bytes: float, ranks: int, kernels: Kernels
) -> tuple[float, Tag] | None:
    """Return seconds and tag of a collective inside one scale-up domain, or None."""
    key = (kind, payload_bytes, ranks)
    if key not in kernels.memo:
        kernels.memo[key] = _collective(kind, payload_bytes, ranks, kernels)
    return kernels.memo[key]


def _collective(
    kind: CollectiveKind, payload_bytes: float, ranks: int, kernels: Kernels
) -> tuple[float, Tag] | None:
    found = kernels.curve(_COLLECTIVE_NAMES[kind], "fp16")
    if found is None or kernels.chip.link_bytes_per_s <= 0.0:
        return None
    family = next(f for f in collectives.FAMILIES if f.name == _COLLECTIVE_NAMES[kind])
    samples = {"bytes": np.array([payload_bytes]), "ranks": np.array([float(ranks)])}
    return float(collectives.seconds(family, found.curve, samples, kernels.chip)[0]), found.tag
