"""Activations that a MoE layer keeps for the backward pass: skew enters them linearly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """What a row of the layer is wide."""

    hidden: int
    """d, of the model."""
    expert_hidden: int
    """f, of one expert."""


def dropless_rows(rank_rows: ArrayLike, etp: int = 1) -> NDArray[np.float64]:
    """Return [..., ranks]: the rows that each rank computes, the same on its etp ranks."""
    return np.repeat(np.asarray(rank_rows, dtype=np.float64), etp, axis=-1)


def capacity_rows(slots: int, local_experts: ArrayLike, sources: int) -> NDArray[np.float64]:
    """Return C E_local G: slots per rank's tokens, of `local_experts`, for G source ranks."""
    return slots * np.asarray(local_experts, dtype=np.float64) * sources


def activation_bytes(
    tokens: float, rank_rows: ArrayLike, widths: Widths, *, etp: int = 1, width_bytes: float = 2
) -> NDArray[np.float64]:
    """Return [..., ranks]: width_bytes (T d + n (2 d + 3 f / etp)), nothing being recomputed.

    T tokens of the rank in the router and the residual, n rows in its gated experts: input and
    output of width d; gate, up and their product of width f, which etp ranks share. Skew is in n.
    Without experts of its own a rank keeps the T d.

    Ours: the theoretical_memory_usage.py of Megatron-LM @d98e8a64 counts neither k nor skew.
    """
    rows = np.asarray(rank_rows, dtype=np.float64)
    per_row = 2 * widths.hidden + 3 * widths.expert_hidden / etp
    return np.asarray(width_bytes * (tokens * widths.hidden + rows * per_row), dtype=np.float64)
