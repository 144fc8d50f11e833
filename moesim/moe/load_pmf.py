"""The law of one expert's load as a vector of probabilities, where it is not negligible.

Probabilities follow from the ratios of neighbours, summed outwards from a point near the mean and
normalised: no log-gamma, whose rounding grows with the number of tokens.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pmf:
    """P(load = first + i) = p[i]; what lies outside is below 1e-20 and left out."""

    first: int
    p: Array

    def loads(self) -> Array:
        """Return the loads that the probabilities belong to."""
        return self.first + np.arange(len(self.p), dtype=np.float64)


def binomial(trials: int, probability: float) -> Pmf:
    """Return the law of successes: p(n+1) / p(n) = (N - n) / (n + 1) * q / (1 - q)."""
    if probability <= 0 or trials == 0:
        return Pmf(0, np.ones(1))
    if probability >= 1:
        return Pmf(trials, np.ones(1))
    mean = trials * probability
    first, last = window(mean, float(np.sqrt(mean * (1 - probability))), trials)
    n = np.arange(first, last, dtype=np.float64)
    odds = probability / (1 - probability)
    return normalised(first, np.log((trials - n) / (n + 1) * odds), int(mean) - first)


def beta_binomial(trials: int, alpha: float, beta: float) -> Pmf:
    """Return the law of successes when their probability is Beta(alpha, beta).

    p(n+1) / p(n) = (N - n) / (n + 1) * (n + alpha) / (N - n - 1 + beta). It may be spread over all
    of 0..N, so no part is left out.
    """
    n = np.arange(trials, dtype=np.float64)
    ratios = (trials - n) / (n + 1) * (n + alpha) / (trials - n - 1 + beta)
    return normalised(0, np.log(ratios), int(trials * alpha / (alpha + beta)))


def window(mean: float, deviation: float, most: int) -> tuple[int, int]:
    """Return the loads outside of which a sum of independent choices has no weight.

    Bernstein: P(|n - mean| > w) < 2 exp(-w^2 / (2 (s^2 + w / 3))), below 1e-30 for w = 12 s + 70.
    """
    width = 12 * deviation + 70
    return max(0, int(mean - width)), min(most, int(mean + width) + 1)


def normalised(first: int, log_ratios: Array, anchor: int) -> Pmf:
    """Return the law whose neighbours have these log ratios; `anchor` is an index near its top."""
    right, left = log_ratios[anchor:], log_ratios[:anchor][::-1]
    log_p = np.concatenate((-np.cumsum(left)[::-1], [0.0], np.cumsum(right)))
    p = np.exp(log_p - log_p.max())
    return Pmf(first, p / p.sum())


def overflow(load: Pmf, slots: int) -> float:
    """Return the expected number of tokens beyond the slots, E[(n - C)+]."""
    beyond = load.loads() - slots
    return float(np.sum(load.p[beyond > 0] * beyond[beyond > 0]))


def at_least(load: Pmf, slots: int) -> float:
    """Return P(n >= C)."""
    return float(load.p[load.loads() >= slots].sum())
