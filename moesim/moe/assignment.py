"""One layer's routing, drawn: which rank computes how many rows, and what is dropped."""

from dataclasses import dataclass

import numpy as np

from moesim.moe.capacity import CapacityRule, slots
from moesim.moe.loads import (
    LoadLaw,
    draw_counts,
    draw_shares,
    even_counts,
    imbalance,
    rank_rows,
)

_MAX_DRAWS = 2**14
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
    """Slots per expert and whole routing group where buffers are padded; else None."""
    copies: float
    """Rows sent per token: what is computed, or all slots where buffers are padded."""
    expert_imbalance: float
    rank_imbalance: float


def assign(router: Router, generator: np.random.Generator) -> LayerLoad:
    """Return the load of one layer, drawn with `generator`."""
    groups = _groups(router)
    shares = draw_shares(router.law, router.experts, generator)
    routed = np.zeros(router.experts, dtype=np.int64)
    kept, slots_in_all, first = routed.copy(), 0, 0
    for tokens, weight in groups:
        if router.law.law == "even":
            counts = even_counts(tokens, router.experts, router.top_k, first)
            first += tokens * router.top_k
        else:
            counts = draw_counts(shares, tokens, router.top_k, generator)
        limit = _slots(router, tokens)
        routed += weight * counts
        kept += weight * (counts if limit is None else np.minimum(counts, limit))
        slots_in_all += weight * (limit or 0)
    padded = router.capacity is not None and router.capacity.pad
    rows = np.full(router.experts, slots_in_all, dtype=np.int64) if padded else kept
    by_rank = rank_rows(rows, router.ranks)
    per_rank = by_rank.sum(axis=1)
    return LayerLoad(
        fullest_rows=tuple(int(n) for n in by_rank[int(np.argmax(per_rank))]),
        mean_rows=float(per_rank.mean()),
        routed=int(routed.sum()),
        computed=int(kept.sum()),
        dropped=int((routed - kept).sum()),
        padded_slots=_slots(router, router.group_tokens) if padded else None,
        copies=float(rows.sum()) / router.tokens,
        expert_imbalance=imbalance(routed),
        rank_imbalance=imbalance(per_rank),
    )


def _slots(router: Router, tokens: int) -> int | None:
    if router.capacity is None:
        return None
    return slots(router.capacity, tokens, router.experts, router.top_k)


def _groups(router: Router) -> list[tuple[int, int]]:
    """Return the routing groups as (tokens, groups that this one stands for).

    The tokens that fill no whole group are a group of their own. Beyond a number of draws equal
    groups are drawn once for several.
    """
    whole, rest = divmod(router.tokens, router.group_tokens)
    groups = [(router.group_tokens, weight) for weight in _weights(whole, router.experts)]
    return [*groups, (rest, 1)] if rest else groups


def _weights(groups: int, experts: int) -> list[int]:
    drawn = min(groups, max(1, _MAX_DRAWS // experts))
    if drawn == 0:
        return []
    each, more = divmod(groups, drawn)
    return [each + 1] * more + [each] * (drawn - more)
