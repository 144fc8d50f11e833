"""Whether the second of two chosen experts gets its token: the policies of three code bases."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moesim.moe.gating.gate import Gate
from moesim.moe.gating.scores import Array

Chance = Callable[[Array, float], Array]
"""From second weights and the threshold to the probability that the token is sent."""


def all(second: Array, limit: float) -> Array:
    """Return 1: every second expert gets its token.

    Source: `all` in tensorflow/mesh mesh_tensorflow/transformer/moe.py _top_2_gating @da907937 and
    in facebookresearch/fairseq branch moe top2gate.py @ebea0072.
    """
    del limit
    return np.ones_like(second)


def none(second: Array, limit: float) -> Array:
    """Return 0: the second expert never gets it. Source: tensorflow/mesh, as `all`."""
    del limit
    return np.zeros_like(second)


def threshold(second: Array, limit: float) -> Array:
    """Return 1 where g2 > threshold, else 0. Source: tensorflow/mesh, as `all`."""
    return (second > limit).astype(np.float64)


def random_gshard(second: Array, limit: float) -> Array:
    """Return min(1, 2 g2): sent if 2 g2 > U(0, 1).

    GShard normalises g1 + g2 = 1 before, so that 2 g2 < 1; fairseq only if it is told to
    (`normalise` of the gate).

    Sources: GShard (arXiv 2006.16668), algorithm 1; fairseq top2gate.py, `random`.
    """
    del limit
    return np.minimum(1.0, 2.0 * second)


def random_mtf(second: Array, limit: float) -> Array:
    """Return min(1, g2 / threshold), g1 + g2 = 1; the threshold is 0.2 by default.

    Source: `random` in tensorflow/mesh, as `all`; it holds at evaluation too.
    """
    return np.minimum(1.0, second / max(limit, 1e-9))


def sampling(second: Array, limit: float) -> Array:
    """Return 1: the second expert is drawn in proportion to exp(logit) and always sent.

    Source: `sampling` in fairseq top2gate.py: argmax of logits + Gumbel noise without the first.
    """
    return all(second, limit)


POLICIES: dict[str, Chance] = {
    "all": all,
    "none": none,
    "threshold": threshold,
    "random_gshard": random_gshard,
    "random_mtf": random_mtf,
    "sampling": sampling,
}
"""The second-expert policies by their name in YAML."""


def chance(gate: Gate, second: Array) -> Array:
    """Return the probability that the token is sent to its second expert, given its weight."""
    return POLICIES[gate.second_policy](second, gate.threshold)


def sent(gate: Gate, second: Array, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return for each token whether it is sent to its second expert: chance > U(0, 1)."""
    return np.asarray(chance(gate, second) > generator.random(second.shape))
