"""One layer's routing, drawn: which rank computes how many rows, and what is dropped."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moesim import rng
from moesim.moe.capacity import CapacityRule, slots
from moesim.moe.counts import Batch, draw_counts
from moesim.moe.domains import mixed
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.sampling import FAST, group_counts
from moesim.moe.groups import competing_tokens
from moesim.moe.habits import HABITS
from moesim.moe.kept_rows import computed_rows, is_padded, rows_after, rows_in_budget, sent_rows
from moesim.moe.loads import (
    Counts,
    LoadLaw,
    Shares,
    draw_shares,
    even_counts,
    imbalance,
)
from moesim.moe.mixed_load import MixedLoad, mixed_counts
from moesim.moe.placed_rows import slot_rows
from moesim.moe.placement import PLACEMENTS, Placement, Room
from moesim.moe.rebalancing import drifted, log_correlation_of

_MAX_DRAWS = 2**14
"""Counts drawn per layer at most; beyond, each drawn group stands for several."""
_MAX_SCORES = 2**22
"""Scores of a token for an expert drawn per layer at most, where tokens are routed one by one."""


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
    rule: str = "softmax_topk"
    """Name of the gating rule, out of gating.table.GATES."""
    gate: Gate | None = None
    """What the rule reads; not needed for softmax_topk."""
    placement: str = "contiguous"
    """Name of the placement rule, out of placement.PLACEMENTS."""
    share_correlation: float = 1.0
    """Of the loads that a placement was made from with those drawn here."""
    shares: tuple[float, ...] = ()
    """Of the experts, where they were measured; empty: drawn by the law."""
    phi: float | None = None
    """Burst factor of the counts; None: tokens choose independently."""
    block_rows: int = 1
    """Rows of an expert are rounded up to a multiple of this where its buffer is not padded."""
    mixed: MixedLoad | None = None
    """Domains of which the tokens are, in place of one law for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLoad:
    """What routing did in one layer. routed = computed + dropped, exactly."""

    fullest_rows: tuple[int, ...]
    """Rows of each local expert on the rank with the most rows."""
    rank_rows: tuple[int, ...]
    """Rows of each rank: which one is the fullest differs from layer to layer."""
    mean_rows: float
    """Rows of a rank in the mean."""
    assignments: int
    """Tokens times top-k, padding included; what the router sends on is `routed`."""
    routed: int
    computed: int
    dropped: int
    padded_slots: int | None
    """Slots per expert and whole routing group where buffers are padded; else None."""
    group_tokens: int
    """Tokens of a whole routing group."""
    copies: float
    """Rows sent per token: the kept ones, all slots of padded buffers, or all that are routed."""
    expert_imbalance: float
    rank_imbalance: float
    """Fullest over mean of the rows that the ranks are sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The rows of every expert of one layer, before they are laid on ranks."""

    shares: Shares
    """[E] how popular the experts are in the long run."""
    routed: Counts
    """[E] assignments wanted."""
    kept: Counts
    """[E] assignments that found a slot."""
    slots: int
    """Slots of an expert over all routing groups; 0 where there is no capacity."""
    fullest: int
    """Assignments that the fullest expert of any routing group was wanted for."""


@dataclass(frozen=True, slots=True)
class Group:
    """What the tokens of one routing group want, and for how many groups it stands."""

    tokens: int
    weight: int
    counts: Counts


def assign(router: Router, generator: np.random.Generator) -> LayerLoad:
    """Return the load of one layer, drawn with `generator`."""
    drawn = draw(router, generator)
    return load_of(router, drawn, placed(router, drawn.shares, generator))


def load_of(router: Router, drawn: Drawn, placement: Placement | None) -> LayerLoad:
    """Return the load of one layer of which `drawn` were drawn; None: experts lie in order."""
    rule = router.capacity
    padded = is_padded(rule)
    sent = sent_rows(rule, drawn.routed, drawn.kept, drawn.slots)
    here = computed_rows(rule, drawn.kept, drawn.slots, router.block_rows)
    by_rank, sent_to = (on_ranks(rows, router, placement) for rows in (here, sent))
    per_rank = by_rank.sum(axis=1)
    return LayerLoad(
        fullest_rows=tuple(int(n) for n in by_rank[int(np.argmax(per_rank))]),
        rank_rows=tuple(int(n) for n in per_rank),
        mean_rows=float(per_rank.mean()),
        assignments=router.tokens * router.top_k,
        routed=int(drawn.routed.sum()),
        computed=int(drawn.kept.sum()),
        dropped=int((drawn.routed - drawn.kept).sum()),
        padded_slots=slots_of(router, router.group_tokens, drawn.fullest) if padded else None,
        group_tokens=router.group_tokens,
        copies=float(sent.sum()) / router.tokens,
        expert_imbalance=imbalance(drawn.routed),
        rank_imbalance=imbalance(sent_to.sum(axis=1)),
    )


def draw(router: Router, generator: np.random.Generator) -> Drawn:
    """Return how many rows each expert of one layer gets, group by group."""
    shares = shares_of(router, generator)
    return drawn_of(router, shares, _wanted(router, shares, generator), generator)


def drawn_of(
    router: Router, shares: Shares, groups: Sequence[Group], generator: np.random.Generator
) -> Drawn:
    """Return the rows of each expert of one layer whose routing groups want `groups`."""
    fullest = max(int(group.counts.max()) for group in groups)
    routed = np.zeros(router.experts, dtype=np.int64)
    kept, slots_in_all = routed.copy(), 0
    for group in groups:
        limit = slots_of(router, group.tokens, fullest)
        routed += group.weight * group.counts
        kept += group.weight * kept_of(router, group.counts, limit, generator)
        slots_in_all += group.weight * (limit or 0)
    return Drawn(shares=shares, routed=routed, kept=kept, slots=slots_in_all, fullest=fullest)


def shares_of(router: Router, generator: np.random.Generator) -> Shares:
    """Return the measured shares of the experts, or shares drawn by the load law."""
    if router.shares:
        return np.asarray(router.shares)
    if router.mixed is not None:
        return np.asarray(mixed(router.mixed.mixture)[0])
    return draw_shares(router.law, router.experts, generator)


def _wanted(router: Router, shares: Shares, generator: np.random.Generator) -> list[Group]:
    groups = groups_of(router)
    wanting = [wanting_tokens(router, tokens) for tokens, _ in groups]
    if router.law.law == "even":
        first = np.cumsum([0, *wanting]) * router.top_k
        drawn = [
            even_counts(tokens, router.experts, router.top_k, int(start))
            for tokens, start in zip(wanting, first, strict=False)
        ]
    else:
        drawn = counts_of(router, shares, wanting, generator)
    return [
        Group(tokens, weight, counts)
        for (tokens, weight), counts in zip(groups, drawn, strict=True)
    ]


def wanting_tokens(router: Router, tokens: int) -> int:
    """Return the tokens of a routing group of `tokens` that want slots: padding may want none."""
    return tokens if router.capacity is None else competing_tokens(router.capacity, tokens)


def kept_of(
    router: Router, counts: Counts, limit: int | None, generator: np.random.Generator
) -> Counts:
    """Return what of one group's counts [E] finds one of the slots `limit`; None: there is none."""
    if router.capacity is None or limit is None:
        return counts
    if not by_device(router):
        return rows_after(counts, limit)
    spared = router.capacity.spared_fraction
    return rows_in_budget(counts, router.ranks, limit, generator, spared_fraction=spared)


def by_device(router: Router) -> bool:
    """Return whether slots are those of a rank, shared by its experts."""
    return router.capacity is not None and HABITS[router.capacity.formula].per_device


def counts_of(
    router: Router, shares: Shares, groups: list[int], generator: np.random.Generator
) -> list[Counts]:
    """Return the assignments [E] that the tokens of each group want of experts of these shares."""
    if router.mixed is not None:
        return _mixed(router, router.mixed, groups, generator)
    if router.gate is not None and router.phi is None:
        sizes = np.asarray(groups, dtype=np.int64)
        return list(group_counts(router.rule, router.gate, shares, sizes, generator=generator))
    return [_counts(router, shares, tokens, generator) for tokens in groups]


def _mixed(
    router: Router, load: MixedLoad, groups: list[int], generator: np.random.Generator
) -> list[Counts]:
    composition = rng.stream(*load.composition)
    batches = [Batch(tokens=tokens, top_k=router.top_k, phi=router.phi) for tokens in groups]
    return [mixed_counts(load, batch, composition, generator) for batch in batches]


def _counts(router: Router, shares: Shares, tokens: int, generator: np.random.Generator) -> Counts:
    return draw_counts(shares, tokens, router.top_k, generator, phi=router.phi)


def placed(router: Router, shares: Shares, generator: np.random.Generator) -> Placement | None:
    """Return where the experts of one layer lie; None where they lie on the ranks in order."""
    if router.placement == "contiguous":
        return None
    known = known_shares(shares, router, generator)
    room = Room(ranks=router.ranks, slots_per_rank=router.experts // router.ranks)
    return PLACEMENTS[router.placement](known, room)


def on_ranks(rows: Counts, router: Router, placement: Placement | None) -> Counts:
    """Return [..., ranks, local experts] of rows [..., experts]."""
    if placement is not None:
        return slot_rows(rows, placement)
    return rows.reshape(*rows.shape[:-1], router.ranks, -1)


def known_shares(shares: Shares, router: Router, generator: np.random.Generator) -> Shares:
    """Return the shares that a placement was made from: those drawn, or as they were before."""
    if router.share_correlation >= 1.0 or router.law.cv == 0.0:
        return shares
    fresh = draw_shares(router.law, router.experts, generator)
    kept = log_correlation_of(router.share_correlation, router.law.cv)
    return np.asarray(drifted(shares, fresh, kept))


def slots_of(router: Router, tokens: int, fullest: int | None = None) -> int | None:
    """Return the slots of an expert, or of a rank where its experts share a budget."""
    if router.capacity is None:
        return None
    return slots(router.capacity, tokens, sharers(router), router.top_k, fullest=fullest)


def sharers(router: Router) -> int:
    """Return how many have slots of their own: the experts, or the ranks."""
    return router.ranks if by_device(router) else router.experts


def groups_of(router: Router) -> list[tuple[int, int]]:
    """Return the routing groups as (tokens, groups that this one stands for).

    The tokens that fill no whole group are a group of their own. Beyond a number of draws equal
    groups are drawn once for several.
    """
    whole, rest = divmod(router.tokens, router.group_tokens)
    groups = [(router.group_tokens, weight) for weight in _weights(whole, _most_groups(router))]
    return [*groups, (rest, 1)] if rest else groups


def _most_groups(router: Router) -> int:
    """Return how many groups are drawn at most: fewer where tokens are routed one by one."""
    if router.gate is None or router.rule in FAST:
        return max(1, _MAX_DRAWS // router.experts)
    return max(1, _MAX_SCORES // (router.group_tokens * router.experts))


def _weights(groups: int, most: int) -> list[int]:
    drawn = min(groups, most)
    if drawn == 0:
        return []
    each, more = divmod(groups, drawn)
    return [each + 1] * more + [each] * (drawn - more)
