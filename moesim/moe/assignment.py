"""One layer's routing, drawn: which rank computes how many rows, and what is dropped."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.moe.capacity import CapacityRule, slots
from moesim.moe.loads import LoadLaw, draw_counts, imbalance, rank_rows

_MAX_DRAWS = 2**17
"""Counts drawn per layer at most; beyond, each drawn group stands for several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """What one MoE layer routes: all tokens of an expert-parallel group."""

    tokens: int
    """Tokens that the ranks of the group hold together."""
    group_tokens: int
    """Tokens of a routing group, the unit a capacity counts over."""
    experts: int
    top_k: int
    ranks: int
    """Ranks over which the experts are spread."""
    law: LoadLaw
    capacity: CapacityRule | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLoad:
    """What routing did in one layer. routed = computed + dropped, exactly."""

    fullest_rows: tuple[int, ...]
    """Rows of each local expert on the rank with the most rows."""
    mean_rows: float
    """Rows of a rank in the mean."""
    routed: int
    computed: int
    dropped: int
    padded_slots: int | None
    """Slots per expert and routing group where buffers are padded; else None."""
    expert_imbalance: float
    rank_imbalance: float


def assign(router: Router, generator: np.random.Generator) -> LayerLoad:
    """Return the load of one layer, drawn with `generator`."""
    groups = max(1, router.tokens // router.group_tokens)
    drawn = _drawn_groups(groups, router.experts)
    counts = np.stack([_group_counts(router, generator) for _ in range(drawn)])
    weight = groups // drawn
    limit = _slots(router)
    kept = counts if limit is None else np.minimum(counts, limit)
    padded = limit if limit is not None and router.capacity and router.capacity.pad else None
    rows = kept.sum(axis=0) * weight
    if padded is not None:
        rows = np.full(router.experts, padded * groups, dtype=np.int64)
    by_rank = rank_rows(rows, router.ranks)
    per_rank = by_rank.sum(axis=1)
    return LayerLoad(
        fullest_rows=tuple(int(n) for n in by_rank[int(np.argmax(per_rank))]),
        mean_rows=float(per_rank.mean()),
        routed=int(counts.sum()) * weight,
        computed=int(kept.sum()) * weight,
        dropped=int((counts - kept).sum()) * weight,
        padded_slots=padded,
        expert_imbalance=imbalance(counts.sum(axis=0)),
        rank_imbalance=imbalance(per_rank),
    )


def _slots(router: Router) -> int | None:
    if router.capacity is None:
        return None
    return slots(router.capacity, router.group_tokens, router.experts, router.top_k)


def _drawn_groups(groups: int, experts: int) -> int:
    """Return the largest divisor of `groups` whose draws stay within the limit."""
    most = max(1, _MAX_DRAWS // experts)
    return next(n for n in range(min(groups, most), 0, -1) if groups % n == 0)


def _group_counts(router: Router, generator: np.random.Generator) -> NDArray[np.int64]:
    return draw_counts(router.law, router.group_tokens, router.experts, router.top_k, generator)
