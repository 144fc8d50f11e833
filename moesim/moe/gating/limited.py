"""Group-limited routing: a token chooses experts in few groups, which lie on one device or node."""

from math import comb

import numpy as np

from moesim.moe.choices import Choices
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.scores import Array, Ids, best, logits, sigmoid, softmax, weigh


def deepseek_v2(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return the k best experts among the M groups whose best expert is best; softmax weights.

    Source: DeepSeek-V2 technical report, device-limited routing.
    """
    found = logits(gate, shares, tokens, generator)
    experts = chosen_in_groups(gate, found, count_best=1)
    return weigh(experts, softmax(found), normalise=gate.normalise, scale=gate.scale)


def deepseek_v3(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return the k best experts by sigmoid + bias among the M best groups; sigmoid weights.

    A group counts the sum of its two best biased scores; weights leave the bias out, are divided by
    their sum and multiplied with `scale` (2.5).

    Source: deepseek-ai/DeepSeek-V3 inference/model.py class Gate @9b4e9788.
    """
    affinity = sigmoid(logits(gate, shares, tokens, generator))
    experts = chosen_in_groups(gate, biased(gate, affinity), count_best=2)
    return weigh(experts, affinity, normalise=gate.normalise, scale=gate.scale)


def biased(gate: Gate, affinity: Array) -> Array:
    """Return the scores by which experts are chosen: affinity plus bias."""
    return affinity + np.asarray(gate.bias) if gate.bias else affinity


def chosen_in_groups(gate: Gate, scores: Array, *, count_best: int) -> Ids:
    """Return the k best experts of the best groups, by the sum of a group's `count_best` best."""
    if gate.groups in {1, gate.groups_per_token}:
        return best(scores, gate.top_k)
    by_group = scores.reshape(len(scores), gate.groups, -1)
    count = min(count_best, by_group.shape[2])
    if count == 1:
        worth = by_group.max(axis=2)
    else:
        worth = np.partition(by_group, -count, axis=2)[:, :, -count:].sum(axis=2)
    groups = np.sort(best(worth, gate.groups_per_token), axis=1)
    inside = np.take_along_axis(by_group, groups[:, :, np.newaxis], axis=1)
    found = best(inside.reshape(len(scores), -1), gate.top_k)
    size = by_group.shape[2]
    return np.take_along_axis(groups, found // size, axis=1) * size + found % size


def limited_groups(gate: Gate) -> float:
    """Return the expected distinct groups a token reaches where any expert is as likely as another.

    E[min(M, D)], D the groups of the k best experts of all: in order of score the M first groups
    to appear are those with the best expert, so that up to the M-th group the pool is the whole
    order. Exact for deepseek_v2 and for no limit; deepseek_v3 reaches 0.7 % less (3.955 drawn,
    3.983 here: k = 8 of 256 in 4 of 8 groups), because the two best of a group pull it in.
    """
    parts, size = gate.groups, gate.experts // gate.groups
    total = comb(gate.experts, gate.top_k)
    mean = 0.0
    for d in range(1, parts + 1):
        # choices that lie in d given groups and miss none of them, by inclusion and exclusion
        onto = sum((-1) ** (d - j) * comb(d, j) * comb(j * size, gate.top_k) for j in range(d + 1))
        mean += min(d, gate.groups_per_token) * (comb(parts, d) * onto / total)
    return mean
