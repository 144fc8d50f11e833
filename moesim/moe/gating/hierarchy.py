"""Two or more levels of routers: groups of experts, groups of groups, and node-limited routing."""

import numpy as np

from moesim.moe.choices import Choices
from moesim.moe.gating.gate import Gate, Level
from moesim.moe.gating.gshard import top2, without_second
from moesim.moe.gating.scores import Array, best, log_popularity, logits, softmax, weigh
from moesim.moe.gating.second import sent


def hierarchical(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return the choices of a hierarchy: y = sum_i sum_j Gp(x)_i G_i(x)_j E_ij(x).

    Each level takes the best `limit` of the `fanout` parts below every part it has entered, a part
    being as popular as its experts together. Weights multiply from level to level. With
    `shared_router` there is one set of scores: a part is worth its best expert, every level keeps
    the best `limit` parts in all and the last level the best experts, so that levels
    [{fanout: D, limit: M}, {fanout: E / D, limit: k}] are deepseek_v2's rule.

    Source: Shazeer et al. 2017 (arXiv 1701.06538), appendix B; one structure for node limits too.
    """
    if gate.shared_router:
        return _one_router(gate, shares, tokens, generator)
    part = np.zeros((tokens, 1), dtype=np.int64)
    weights = np.ones((tokens, 1))
    for depth, level in enumerate(gate.levels):
        popularity = part_shares(shares, gate.levels, depth)
        found = _inside(gate, level, popularity[part], generator)
        part = (part[:, :, np.newaxis] * level.fanout + found.experts).reshape(tokens, -1)
        weights = (weights[:, :, np.newaxis] * found.weights).reshape(tokens, -1)
    return heaviest_first(Choices(part, weights))


def part_shares(shares: Array, levels: tuple[Level, ...], depth: int) -> Array:
    """Return the share of each part of a level within its parent: [parents, fanout]."""
    parts = int(np.prod([level.fanout for level in levels[: depth + 1]]))
    together = shares.reshape(parts, -1).sum(axis=1).reshape(-1, levels[depth].fanout)
    return np.asarray(together / np.maximum(together.sum(axis=1, keepdims=True), 1e-300))


def _inside(gate: Gate, level: Level, popularity: Array, generator: np.random.Generator) -> Choices:
    """Return the choices [token, part entered, limit], from popularity [token, part, fanout]."""
    tokens = popularity.size // level.fanout
    taste = logits(gate, np.ones(level.fanout), tokens, generator).reshape(popularity.shape)
    found = taste + gate.sharpness * log_popularity(popularity)
    return weigh(best(found, level.limit), softmax(found), normalise=gate.normalise)


def _one_router(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    found = logits(gate, shares, tokens, generator)
    masked = found
    for depth, level in enumerate(gate.levels[:-1]):
        parts = int(np.prod([upper.fanout for upper in gate.levels[: depth + 1]]))
        worth = masked.reshape(tokens, parts, -1).max(axis=2)
        kept = np.zeros((tokens, parts), dtype=bool)
        np.put_along_axis(kept, best(worth, level.limit), True, axis=1)
        masked = np.where(np.repeat(kept, gate.experts // parts, axis=1), masked, -np.inf)
    return weigh(best(masked, gate.top_k), softmax(found), normalise=gate.normalise)


def mtf_v2(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return mesh-tensorflow's choice: up to two experts in the first group, one in the second.

    Each level is a top-2 router with the gate's second-expert policy. In its first-choice group a
    token has importance 1 and may use two experts; in its second, importance 0.5 and the best
    expert only, whose weight, normalised alone, is 1 and passes any random policy. So 1 to 3
    experts before capacity drops, 0 to 3 after.

    Source: tensorflow/mesh mesh_tensorflow/transformer/moe.py transformer_moe_layer_v2 and
    _top_2_gating @da907937.
    """
    upper = _level_gate(gate, gate.levels[0])
    groups = _top2_sent(upper, part_shares(shares, gate.levels, 0)[0], tokens, generator)
    fanout = gate.levels[1].fanout
    popularity = part_shares(shares, gate.levels, 1)
    experts = np.full((tokens, 3), -1, dtype=np.int64)
    weights = np.zeros((tokens, 3))
    for group in range(upper.experts):
        inner = _level_gate(gate, gate.levels[1])
        first, second = (np.flatnonzero(groups.experts[:, slot] == group) for slot in (0, 1))
        two = _top2_sent(inner, popularity[group], len(first), generator)
        wanted = two.experts >= 0
        experts[first, :2] = np.where(wanted, two.experts + group * fanout, -1)
        weights[first, :2] = groups.weights[first, :1] * two.weights
        one = best(logits(inner, popularity[group], len(second), generator), 1)[:, 0]
        experts[second, 2] = one + group * fanout
        weights[second, 2] = groups.weights[second, 1]
    return heaviest_first(Choices(experts, weights))


def _level_gate(gate: Gate, level: Level) -> Gate:
    return Gate(
        experts=level.fanout, top_k=2, second_policy=gate.second_policy,
        threshold=gate.threshold, sharpness=gate.sharpness,
    )  # fmt: skip


def _top2_sent(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    wanted = top2(gate, shares, tokens, generator)
    return without_second(wanted, sent(gate, wanted.weights[:, 1], generator))


def heaviest_first(choices: Choices) -> Choices:
    """Return the choices of each token by falling weight, missing ones last."""
    order = np.argsort(np.where(choices.experts < 0, 1.0, -choices.weights), axis=1, kind="stable")
    return Choices(
        np.take_along_axis(choices.experts, order, axis=1),
        np.take_along_axis(choices.weights, order, axis=1),
    )
