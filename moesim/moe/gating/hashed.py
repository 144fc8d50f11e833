"""Hash routing: a fixed map from token id to expert, so the load is the vocabulary's, binned."""

from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

from moesim.moe.choices import Choices
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.scores import Array

Ids = NDArray[np.int64]


def hash(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return the expert to which each token's id is mapped, weight 1.

    `shares` are the frequencies of the token ids here, not those of experts: from a load law over
    the vocabulary, from data, or from `zipf`. The map does not change, whatever the generator.

    Source: Roller et al. 2021, Hash layers (arXiv 2106.04426).
    """
    drawn = np.searchsorted(np.cumsum(shares / shares.sum()), generator.random(tokens))
    token = np.minimum(drawn, len(shares) - 1)
    return Choices(expert_of(gate, shares)[token][:, np.newaxis], np.ones((tokens, 1)))


def expert_of(gate: Gate, frequencies: Array) -> Ids:
    """Return the expert of each token id, by the map that the gate names."""
    if gate.hash_map == "balanced":
        return balanced_map(frequencies, gate.experts)
    return mixed_map(len(frequencies), gate.experts)


def hash_load(gate: Gate, frequencies: Array) -> Array:
    """Return the share of the tokens that each expert gets: the frequencies of its token ids."""
    share = frequencies / frequencies.sum()
    found = np.bincount(expert_of(gate, frequencies), weights=share, minlength=gate.experts)
    return np.asarray(found, dtype=np.float64)


def zipf(vocabulary: int, exponent: float = 1.0) -> Array:
    """Return frequencies in proportion to 1 / rank ** exponent."""
    weights = np.arange(1, vocabulary + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum())


def mixed_map(vocabulary: int, experts: int) -> Ids:
    """Return a scrambled but fixed map: the SplitMix64 mix of the token id, modulo the experts.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
    """
    x = (np.arange(vocabulary, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((x ^ (x >> np.uint64(31))) % np.uint64(experts), dtype=np.int64)


def balanced_map(frequencies: Array, experts: int) -> Ids:
    """Return a map that bins token ids evenly: the most frequent first, to the least loaded expert.

    Source: Roller et al. 2021, Hash layers, balanced assignment.
    """
    loads = [(0.0, expert) for expert in range(experts)]
    heapify(loads)
    found = np.empty(len(frequencies), dtype=np.int64)
    for token in np.argsort(-frequencies, kind="stable"):
        load, expert = loads[0]
        found[token] = expert
        heapreplace(loads, (load + float(frequencies[token]), expert))
    return found
