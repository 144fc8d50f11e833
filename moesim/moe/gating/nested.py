"""Experts that are MoEs themselves: the same table of rules applied again inside each expert."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from moesim.moe.choices import Choices
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.scores import Array
from moesim.moe.gating.table import choose

Named = tuple[str, Gate]
"""A rule's name and its gate, one per depth, the outermost first."""


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


def nested(
    gates: Sequence[Named], shares: Array, tokens: int, generator: np.random.Generator
) -> Choices:
    """Return choices among leaf experts: a token is routed again inside each expert it chose.

    `shares` are those of the leaves, in order; an expert is as popular as its leaves together.
    Weights multiply: y = sum_i G_i(x) sum_j G_ij(x) E_ij(x).

    Source: Shazeer et al. 2017 (arXiv 1701.06538), appendix B, eq. 12, applied again.
    """
    name, gate = gates[0]
    inside = shares.reshape(gate.experts, -1)
    outer = choose(name, gate, inside.sum(axis=1), tokens, generator=generator)
    if len(gates) == 1:
        return outer
    found = []
    for expert in range(gate.experts):
        token, slot = np.nonzero(outer.experts == expert)
        found.append((token, slot, nested(gates[1:], inside[expert], len(token), generator)))
    width = max(inner.experts.shape[1] for _, _, inner in found)
    experts = np.full((*outer.experts.shape, width), -1, dtype=np.int64)
    weights = np.zeros(experts.shape)
    for expert, (token, slot, inner) in enumerate(found):
        k = inner.experts.shape[1]
        leaf = inner.experts + expert * inside.shape[1]
        experts[token, slot, :k] = np.where(inner.experts < 0, -1, leaf)
        weights[token, slot, :k] = inner.weights * outer.weights[token, slot][:, np.newaxis]
    return Choices(experts.reshape(tokens, -1), weights.reshape(tokens, -1))


def nested_size(gates: Sequence[Gate]) -> NestedSize:
    """Return what a stack of gates holds and runs: stored = prod E, active = prod k.

    Routers of depth d: one for each expert above, E_1 .. E_(d-1) of them with E_d scores; a token
    asks k_1 .. k_(d-1) of them. Two levels: weights a + a b, scores a + k_1 b per unit of width.
    """
    sizes, ks = [gate.experts for gate in gates], [gate.top_k for gate in gates]
    return NestedSize(
        stored=prod(sizes),
        active=prod(ks),
        router_params=sum(prod(sizes[: depth + 1]) for depth in range(len(gates))),
        router_scores=sum(prod(ks[:depth]) * sizes[depth] for depth in range(len(gates))),
    )
