"""One layer's routing, drawn: which rank computes how many rows, and what is dropped."""

from dataclasses import dataclass

import numpy as np

from moesim.moe.capacity import CapacityRule, pads, slots
from moesim.moe.habits import HABITS
from moesim.moe.kept_rows import rows_after, rows_in_budget
from moesim.moe.loads import (
    Counts,
    LoadLaw,
    Shares,
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
    shares = draw_shares(router.law, router.experts, generator)
    groups = _drawn(router, shares, generator)
    fullest = max(int(group.counts.max()) for group in groups)
    routed = np.zeros(router.experts, dtype=np.int64)
    kept, slots_in_all = routed.copy(), 0
    for group in groups:
        limit = _slots(router, group.tokens, fullest)
        routed += group.weight * group.counts
        kept += group.weight * _kept(router, group.counts, limit, generator)
        slots_in_all += group.weight * (limit or 0)
    padded = router.capacity is not None and pads(router.capacity) and not _by_device(router)
    rows = np.full(router.experts, slots_in_all, dtype=np.int64) if padded else kept
    by_rank = rank_rows(rows, router.ranks)
    per_rank = by_rank.sum(axis=1)
    return LayerLoad(
        fullest_rows=tuple(int(n) for n in by_rank[int(np.argmax(per_rank))]),
        mean_rows=float(per_rank.mean()),
        routed=int(routed.sum()),
        computed=int(kept.sum()),
        dropped=int((routed - kept).sum()),
        padded_slots=_slots(router, router.group_tokens, fullest) if padded else None,
        copies=float(rows.sum()) / router.tokens,
        expert_imbalance=imbalance(routed),
        rank_imbalance=imbalance(per_rank),
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The counts of one routing group, and how many groups it stands for."""

    tokens: int
    weight: int
    counts: Counts


def _drawn(router: Router, shares: Shares, generator: np.random.Generator) -> list[_Drawn]:
    found, first = [], 0
    for tokens, weight in _groups(router):
        if router.law.law == "even":
            counts = even_counts(tokens, router.experts, router.top_k, first)
            first += tokens * router.top_k
        else:
            counts = draw_counts(shares, tokens, router.top_k, generator)
        found.append(_Drawn(tokens, weight, counts))
    return found


def _by_device(router: Router) -> bool:
    return router.capacity is not None and HABITS[router.capacity.formula].per_device


def _slots(router: Router, tokens: int, fullest: int) -> int | None:
    """Return the slots of an expert, or of a rank where its experts share a budget."""
    if router.capacity is None:
        return None
    sharers = router.ranks if _by_device(router) else router.experts
    return slots(router.capacity, tokens, sharers, router.top_k, fullest=fullest)


def _kept(
    router: Router, counts: Counts, limit: int | None, generator: np.random.Generator
) -> Counts:
    if router.capacity is None or limit is None:
        return counts
    if not _by_device(router):
        return rows_after(counts, limit)
    spared = router.capacity.spared_fraction
    return rows_in_budget(counts, router.ranks, limit, generator, spared_fraction=spared)


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
