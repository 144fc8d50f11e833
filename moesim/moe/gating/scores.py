"""What a router thinks of each expert for each token, and the pieces that all rules share.

Popularity enters as log shares, a token's own taste as Gumbel noise: the k best of log s_e + G are
then a choice without replacement, in proportion to the shares (Plackett-Luce), and the first choice
is expert e with probability s_e.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.moe.choices import Choices
from moesim.moe.gating.gate import Gate

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

_SMALLEST = 1e-300
"""Stands for a share of zero, whose logarithm no float holds."""

GUMBEL_SD = float(np.pi / np.sqrt(6))
"""Standard deviation of a Gumbel variable."""


def log_popularity(shares: Array) -> Array:
    """Return log(E s_e): zero for equal shares, so that a sigmoid sees the scale it expects."""
    relative = shares * (shares.shape[-1] / shares.sum(axis=-1, keepdims=True))
    return np.asarray(np.log(np.maximum(relative, _SMALLEST)))


def logits(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Array:
    """Return h[token, expert] = sharpness * (log(E s_e) + Gumbel).

    A Gumbel variable is -log X with X exponential.
    """
    waits = generator.standard_exponential((tokens, len(shares)))
    np.maximum(waits, _SMALLEST, out=waits)
    return gate.sharpness * (log_popularity(shares) - np.log(waits))


def best(scores: Array, k: int) -> Ids:
    """Return the indices of the k largest along the last axis, the largest first."""
    if k == 1:
        return np.asarray(np.argmax(scores, axis=-1))[..., np.newaxis]
    if k < scores.shape[-1]:
        found = np.argpartition(scores, -k, axis=-1)[..., -k:]
    else:
        found = np.broadcast_to(np.arange(k), scores.shape).copy()
    order = np.argsort(-np.take_along_axis(scores, found, axis=-1), axis=-1, kind="stable")
    return np.take_along_axis(found, order, axis=-1)


def softmax(values: Array) -> Array:
    """Return exp(v) / sum(exp(v)) along the last axis."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def sigmoid(values: Array) -> Array:
    """Return 1 / (1 + exp(-v)), in the form that does not overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * values))


def weigh(experts: Ids, affinity: Array, *, normalise: bool, scale: float = 1.0) -> Choices:
    """Return the choices with the affinities of the chosen as weights."""
    weights = np.take_along_axis(affinity, experts, axis=-1)
    if normalise:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return Choices(experts, scale * weights)
