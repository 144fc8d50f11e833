"""Who finishes last: per-rank times or rows of layers, and what the fullest rank costs.

The values are handed in, seconds or rows; ranks wait for each other at the end of every layer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    """What the slowest rank of each layer does to a sum over layers."""

    slowest: NDArray[np.int64]
    """[layers] the rank that each layer waits for."""
    maxima: Values
    """[layers] its value."""
    means: Values
    """[layers] what a perfectly even layer would take."""
    sum_of_maxima: float
    """What the layers take together: ranks meet after each of them."""
    maximum_of_sums: float
    """What they would take if ranks met only once, at the end."""


def straggler(values: NDArray[np.floating] | NDArray[np.int64]) -> Straggler:
    """Return the maxima over ranks of values [layers, ranks] and both ways to add them.

    sum over layers of max over ranks >= max over ranks of sum over layers.
    """
    each = np.asarray(values, dtype=np.float64)
    maxima = each.max(axis=1)
    means = np.minimum(each.mean(axis=1), maxima)  # equal values have no mean above them
    return Straggler(
        slowest=each.argmax(axis=1),
        maxima=maxima,
        means=means,
        sum_of_maxima=float(maxima.sum()),
        maximum_of_sums=float(each.sum(axis=0).max()),
    )


def excess(values: NDArray[np.floating] | NDArray[np.int64]) -> Values:
    """Return (max - mean) / mean over the last axis; 0 where all are 0."""
    each = np.asarray(values, dtype=np.float64)
    mean = each.mean(axis=-1)
    safe = np.where(mean > 0, mean, 1.0)
    return np.asarray(np.where(mean > 0, each.max(axis=-1) / safe - 1, 0.0))
