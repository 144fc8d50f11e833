"""Experts that are MoEs themselves: a token is routed again inside each expert that it chose."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from moesim.moe.choices import Choices
from moesim.moe.gating.balanced import base
from moesim.moe.gating.gate import Gate, Level
from moesim.moe.gating.hierarchy import heaviest_first
from moesim.moe.gating.scores import Array
from moesim.moe.gating.token_choice import noisy_topk, softmax_topk

INNER: dict[str, Callable[[Gate, Array, int, np.random.Generator], Choices]] = {
    "softmax_topk": softmax_topk,
    "noisy_topk": noisy_topk,
    "base": base,
}
"""Rules that a level may have, under their names in YAML."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NestedSize:
    """What nesting multiplies, against one leaf expert and one unit of hidden width."""

    stored: int
    """Leaf experts held: parameters are this times those of a leaf."""
    active: int
    """Leaf experts that a token runs: FLOP are this times those of a leaf."""
    router_params: int
    """Router weights per unit of hidden width, all routers together."""
    router_scores: int
    """Router scores per token; each costs 2 FLOP per unit of hidden width."""


def nested(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return choices among leaf experts, level by level of the gate, each level by its own rule.

    `shares` are those of the leaves, in order; an expert is as popular as its leaves together.
    Weights multiply: y = sum_i G_i(x) sum_j G_ij(x) E_ij(x). Unlike `hierarchical`, each inner MoE
    is a layer of its own: its router sees only the tokens that came to it, so that base balances
    them among themselves.

    Source: Shazeer et al. 2017 (arXiv 1701.06538), appendix B, applied again.
    """
    level = gate.levels[0]
    inside = shares.reshape(level.fanout, -1)
    outer = INNER[level.rule](level_gate(gate, level), inside.sum(axis=1), tokens, generator)
    if len(gate.levels) == 1:
        return outer
    inner_gate = replace(gate, levels=gate.levels[1:])
    found = []
    for expert in range(level.fanout):
        token, slot = np.nonzero(outer.experts == expert)
        found.append((token, slot, nested(inner_gate, inside[expert], len(token), generator)))
    width = max(inner.experts.shape[1] for _, _, inner in found)
    experts = np.full((*outer.experts.shape, width), -1, dtype=np.int64)
    weights = np.zeros(experts.shape)
    for expert, (token, slot, inner) in enumerate(found):
        k = inner.experts.shape[1]
        experts[token, slot, :k] = inner.experts + expert * inside.shape[1]
        weights[token, slot, :k] = inner.weights * outer.weights[token, slot][:, np.newaxis]
    return heaviest_first(Choices(experts.reshape(tokens, -1), weights.reshape(tokens, -1)))


def level_gate(gate: Gate, level: Level) -> Gate:
    """Return the gate of one level's router."""
    return replace(
        gate, experts=level.fanout, top_k=level.limit, levels=(), groups=1, groups_per_token=1
    )


def nested_size(levels: tuple[Level, ...]) -> NestedSize:
    """Return what a stack of MoEs holds and runs: stored = prod E, active = prod k.

    Routers of depth d: one for each expert above, E_1 .. E_(d-1) of them with E_d scores; a token
    asks k_1 .. k_(d-1) of them. Two levels: weights a + a b, scores a + k_1 b per unit of width.
    """
    sizes, ks = [level.fanout for level in levels], [level.limit for level in levels]
    return NestedSize(
        stored=prod(sizes),
        active=prod(ks),
        router_params=sum(prod(sizes[: depth + 1]) for depth in range(len(levels))),
        router_scores=sum(prod(ks[:depth]) * sizes[depth] for depth in range(len(levels))),
    )
