"""Seconds of our operators by the plain curves of `moesim calibrate`.

The columns are those that the calibration suite fits: an operator is priced as the piece of torch
that it is.
"""

from collections.abc import Mapping

import numpy as np

from moesim.cost.curves import Array, predict_s, uncertainty
from moesim.cost.families import simple
from moesim.cost.fitted import Found, Kernels
from moesim.cost.times import Known
from moesim.model.operators import (
    AttentionCore,
    Gemm,
    GroupedGemm,
    Pointwise,
    read_bytes,
    written_bytes,
)

_FAMILIES = {family.name: family for family in simple.FAMILIES}

POINTWISE = {
    "attention_norm": "norm", "cross_attention_norm": "norm", "ffn_norm": "norm",
    "final_norm": "norm", "encoder_norm": "norm", "mtp_norm": "norm", "rope": "rope",
    "ffn_activation": "activation", "expert_activation": "activation", "embedding": "embedding",
    "permute": "permute", "unpermute": "unpermute",
    "sort_by_expert": "permute", "sort_by_source": "permute", "short_convolution": "add",
}  # fmt: skip
"""Which piece of the suite an operator is."""


def known(found: Found, columns: Mapping[str, float], kernels: Kernels) -> Known:
    """Return what a plain curve says of one shape."""
    family = _FAMILIES[found.curve.family]
    samples: dict[str, Array] = {name: np.array([float(v)]) for name, v in columns.items()}
    seconds = float(predict_s(family, found.curve, samples, kernels.chip)[0])
    spread = float(uncertainty(family, found.curve, samples)[0])
    return Known(seconds, found.tag, spread, found.profile)


def gemm_columns(operator: Gemm) -> dict[str, float]:
    """Return m, n and k."""
    return {"m": operator.m, "n": operator.n, "k": operator.k}


def grouped_columns(operator: GroupedGemm) -> dict[str, float]:
    """Return the experts that have rows, all rows, n and k."""
    active = [count for count in operator.rows if count]
    return {"experts": len(active), "rows": sum(active), "n": operator.n, "k": operator.k}


def attention_columns(operator: AttentionCore) -> dict[str, float]:
    """Return the columns of attention; `causal` is twice the share of the pairs masked out.

    A sliding window hides more than half of them, so it may exceed 1.
    """
    sequences = operator.sequences
    queries, keys = operator.queries / sequences, operator.keys / sequences
    seen = operator.pairs / sequences / (queries * keys)
    return {
        "sequences": sequences, "queries": queries, "keys": keys, "heads": operator.heads,
        "kv_heads": operator.kv_heads, "head_dim": (operator.qk_dim + operator.v_dim) / 2,
        "causal": 2.0 * (1.0 - seen) * keys / max(1.0, keys - 1.0),
    }  # fmt: skip


def attention_role(operator: AttentionCore) -> str:
    """Return prefill, prefill_grad, or decode where every sequence has one query."""
    if operator.qk_products > 1:
        return "prefill_grad"
    return "decode" if operator.queries == operator.sequences < operator.keys else "prefill"


def pointwise_columns(operator: Pointwise) -> dict[str, float]:
    """Return the rows, and the bytes read and written."""
    moved = (read_bytes(operator) + written_bytes(operator)) / operator.count
    return {"items": operator.rows, "bytes": moved}


def pointwise_role(operator: Pointwise) -> str:
    """Return the piece of the suite that the operator is, forward or backward."""
    name = operator.name.removesuffix("_grad")
    piece = POINTWISE.get(name, "add")
    return f"{piece}_grad" if name != operator.name and piece != "add" else piece


def collective_columns(moved_bytes: float, ranks: int) -> dict[str, float]:
    """Return the bytes on the wire of the fullest rank, and the ranks."""
    return {"bytes": moved_bytes, "ranks": ranks}
