"""How many distinct ranks or nodes the choices of a token reach: counted, and by group rules.

The closed forms for uniform choices are `fan_out` and `limited_fan_out` of traffic.py; these are
for choices at hand, and for routers that pick the groups of a token by its scores.
"""

from math import comb

import numpy as np
from numpy.typing import NDArray

from moesim.moe.traffic import Destinations

Parts = NDArray[np.int64]


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

    DeepSeek-V2 technical report, section 2.2.2 (device-limited routing), scores exchangeable.
    """
    reached = _distinct_groups(where.experts, where.groups, where.top_k)
    groups = np.arange(where.groups + 1)
    return float(np.minimum(groups, where.groups_per_token) @ reached)


def score_limited_fan_out(
    where: Destinations,
    parts: int,
    rng: np.random.Generator,
    *,
    best: int = 2,
    tokens: int = 20_000,
) -> float:
    """Return the fan-out over `parts` where groups are picked by their `best` highest scores.

    Sampled: `tokens` tokens of independent uniform scores; the groups with the highest sum of
    their `best` scores stay, then the k best experts in them. best 2: DeepSeek-V3,
    deepseek-ai/DeepSeek-V3 inference/model.py class Gate @9b4e9788; best 1: DeepSeek-V2.
    """
    scores = rng.random((tokens, where.experts))
    experts = score_limited_choices(scores, where, best)
    return float(distinct(experts * parts // where.experts).mean())


def score_limited_choices(scores: NDArray[np.float64], where: Destinations, best: int) -> Parts:
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
