"""How many distinct ranks or nodes the choices of a token reach: counted, and by group rules.

The closed forms for uniform choices are `fan_out` and `limited_fan_out` of traffic.py; these are
for choices at hand, and for routers that pick the groups of a token by its scores.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from moesim import rng as rng_streams
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
    groups themselves are reached as in `best_expert_limited_fan_out`, exactly.
    """
    if where.groups <= 1 or where.groups_per_token >= where.groups:
        return uniform_reach(where)
    stream = rng_streams.stream(0, "reach under a group limit")
    best = min(where.group_best, where.experts // where.groups)
    found = score_limited_reach(where, stream, best)
    if best > 1:
        return found
    exact = best_expert_limited_fan_out(where)
    return Reach(
        ranks=exact if where.ranks == where.groups else found.ranks,
        domains=exact if where.domains == where.groups else found.domains,
    )


def score_limited_reach(where: Destinations, rng: np.random.Generator, best: int = 2) -> Reach:
    """Return what choices reach where groups are picked by their `best` highest scores.

    Sampled with independent uniform scores: the groups with the highest sum of their `best` scores
    stay, then the k best experts in them. best 2: DeepSeek-V3, deepseek-ai/DeepSeek-V3
    inference/model.py class Gate @9b4e9788; best 1: DeepSeek-V2. Groups picked for high scores
    are reached more often than groups picked at random: 3.95 nodes of DeepSeek-V3, not 3.63.
    """
    experts = score_limited_experts(rng.random((SAMPLED_TOKENS, where.experts)), where, best)
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


def best_expert_limited_fan_out(where: Destinations) -> float:
    """Return the groups reached where a token's m groups are those with its best experts.

    F = sum over j of min(m, j) P(k uniform choices lie in j groups): down a token's ranking of
    all experts, none outside its m groups comes before each of the m has appeared.

    DeepSeek-V2 technical report, device-limited routing, scores exchangeable.
    """
    reached = _distinct_groups(where.experts, where.groups, where.top_k)
    groups = np.arange(where.groups + 1)
    return float(np.minimum(groups, where.groups_per_token) @ reached)


def score_limited_experts(scores: NDArray[np.float64], where: Destinations, best: int) -> Parts:
    """Return [tokens, k] experts chosen by scores [tokens, E] within the best groups, unordered."""
    grouped = scores.reshape(len(scores), where.groups, -1)
    group_score = np.partition(grouped, -best, axis=2)[..., -best:].sum(axis=2)
    if where.groups_per_token < where.groups:
        limit = where.groups - where.groups_per_token
        closed = np.argpartition(group_score, limit, axis=1)[:, :limit]
        grouped = grouped.copy()
        np.put_along_axis(grouped, closed[..., None], -np.inf, axis=1)
    flat = grouped.reshape(scores.shape)
    return np.asarray(np.argpartition(flat, -where.top_k, axis=1)[:, -where.top_k :])


def _distinct_groups(experts: int, groups: int, top_k: int) -> NDArray[np.float64]:
    """Return P(k uniform choices lie in exactly j groups) for j = 0 .. groups.

    binom(G, j) sum_i (-1)^(j - i) binom(j, i) binom(i E / G, k) / binom(E, k), in whole numbers.
    """
    size = experts // groups
    ways = [
        comb(groups, j)
        * sum((-1) ** (j - i) * comb(j, i) * comb(i * size, top_k) for i in range(j + 1))
        for j in range(groups + 1)
    ]
    total = comb(experts, top_k)
    return np.array([way / total for way in ways])
