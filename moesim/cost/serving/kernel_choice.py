"""Which measured kernels an engine has to choose from, and the quickest of them."""

from collections.abc import Sequence

import numpy as np

from moesim.cost.curves import Array, Family, Samples, predict_s
from moesim.cost.families import moe
from moesim.cost.fitted import Found
from moesim.cost.serving.deployment import Deployment

FEW_TOKENS = 128.0
"""Tokens up to which TensorRT-LLM's low-latency kernels count: ai-dynamo/aiconfigurator,
perf_database.py, query_moe, which says that it follows TensorRT-LLM (from memory, unchecked)."""

_LOW_LATENCY = ("_min_latency", "_flashinfer_trtllm")
"""Low-latency kernels of TensorRT-LLM, in its own tables and as FlashInfer lends them to vLLM."""


def products(family: Family, number: str, on: Deployment) -> Sequence[Found]:
    """Return the kernels of matrix products that count: all that were measured on this device.

    All engines take them from cuBLAS, CUTLASS, DeepGEMM and FlashInfer, and time them at start.
    Without a curve of this device, the first lent one.
    """
    found = on.kernels.every(number, family.name)
    return [one for one in found if one.tag != "transferred"] or found[:1]


def experts(number: str, on: Deployment, *, gated: bool) -> tuple[list[Found], list[Found]]:
    """Return the kernels for at most `FEW_TOKENS` tokens, and those for more.

    An engine tries at start what it has and keeps the fastest for each shape (TensorRT-LLM and
    FlashInfer autotuners, vLLM's tuned configurations): kernels of the most preferred library
    that was measured on this device, not those of another engine; where there is none, the first
    lent one. A library's low-latency kernels count for few tokens alone, unless it has no others.
    """
    usable = [one for one in on.kernels.every(number, moe.MOE.name) if _meant(one, on, gated=gated)]
    own = [one for one in usable if one.tag != "transferred"]
    mine = [one for one in own if one.profile == own[0].profile]
    if not mine:
        return usable[:1], usable[:1]
    if not mine[0].profile.endswith("--trtllm"):
        return mine, mine
    quick = [one for one in own if any(word in one.curve.variant for word in _LOW_LATENCY)]
    many = [one for one in mine if one not in quick] or mine
    return [*many, *(one for one in quick if one not in many)], many


def _meant(one: Found, on: Deployment, *, gated: bool) -> bool:
    """Tell whether a kernel is one of this layer and layout, as far as its name says.

    Kernels of wide expert parallelism take tokens that an exchange has sorted: where no group of
    ranks brings its own, nobody calls them. DeepEP's contiguous and masked layouts are products of
    DeepGEMM, which are taken to be at hand without DeepEP as well (assumed).
    """
    name = one.curve.variant
    if gated is name.endswith("_nongated"):
        return False
    return on.cut.dp > 1 or not name.startswith("wideep_")


def quickest(
    family: Family, found: Sequence[Found], samples: Samples, on: Deployment
) -> Array | None:
    """Return the seconds of the quickest of some kernels for each sample; None without one."""
    if not found:
        return None
    each = [predict_s(family, one.curve, samples, on.chip) for one in found]
    return np.asarray(np.min(each, axis=0), dtype=np.float64)
