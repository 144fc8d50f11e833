"""How many distinct ranks or nodes the choices of a token reach: counted, and by group rules.

The closed forms for uniform choices are `fan_out` and `limited_fan_out` of traffic.py; these are
for choices at hand, and for routers that pick the groups of a token by its scores.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moesim import rng as rng_streams
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.limited import chosen_in_groups, limited_groups
from moesim.moe.traffic import Destinations, limited_fan_out

Parts = NDArray[np.int64]

SAMPLED_TOKENS = 20_000
"""Tokens whose choices are sampled; the mean of distinct parts is then known within 0.02."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How many distinct ranks and scale-up domains (nodes) a token's choices reach."""

    ranks: float
    domains: float


def uniform_reach(where: Destinations) -> Reach:
    """Return the closed form for uniform choices, within uniformly chosen groups if limited."""
    return Reach(
        ranks=limited_fan_out(where, where.ranks), domains=limited_fan_out(where, where.domains)
    )


@lru_cache(maxsize=256)
def typical_reach(where: Destinations) -> Reach:
    """Return what a token reaches on average: the closed form, or sampled under a group limit.

    Routers pick the groups of a token by its scores, and groups picked so are reached more often
    than groups picked at random. Where the best expert of a group counts, as in DeepSeek-V2, the
    groups themselves are reached as in `limited_groups`, exactly.
    """
    if where.groups <= 1 or where.groups_per_token >= where.groups:
        return uniform_reach(where)
    stream = rng_streams.stream(0, "reach under a group limit")
    found = score_limited_reach(where, stream, where.group_best)
    if where.group_best > 1:
        return found
    exact = limited_groups(_gate(where))
    return Reach(
        ranks=exact if where.ranks == where.groups else found.ranks,
        domains=exact if where.domains == where.groups else found.domains,
    )


def _gate(where: Destinations) -> Gate:
    return Gate(
        experts=where.experts, top_k=where.top_k, groups=where.groups,
        groups_per_token=where.groups_per_token,
    )  # fmt: skip


def score_limited_reach(where: Destinations, rng: np.random.Generator, best: int = 2) -> Reach:
    """Return what choices reach where groups are picked by their `best` highest scores.

    Sampled with independent uniform scores: the groups with the highest sum of their `best` scores
    stay, then the k best experts in them. best 2: DeepSeek-V3, deepseek-ai/DeepSeek-V3
    inference/model.py class Gate @9b4e9788; best 1: DeepSeek-V2. Groups picked for high scores
    are reached more often than groups picked at random: 3.95 nodes of DeepSeek-V3, not 3.63.
    """
    scores = rng.random((SAMPLED_TOKENS, where.experts))
    experts = chosen_in_groups(_gate(where), scores, count_best=best)
    ranks, domains = (
        float(distinct(experts * parts // where.experts).mean())
        for parts in (where.ranks, where.domains)
    )
    return Reach(ranks=ranks, domains=domains)


def distinct(parts: Parts) -> Parts:
    """Return [tokens]: how many distinct values each row of `parts` [tokens, k] has, -1 aside."""
    ordered = np.sort(parts, axis=1)
    new = np.ones(ordered.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return np.asarray((new & (ordered >= 0)).sum(axis=1), dtype=np.int64)


def parts_of(experts: Parts, part_of_expert: Parts) -> Parts:
    """Return the rank, node or group of each choice; -1 where there is none."""
    return np.where(experts < 0, -1, part_of_expert[np.maximum(experts, 0)])
