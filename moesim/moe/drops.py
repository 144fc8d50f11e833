"""The share of assignments that find no slot, in closed form.

D = E / (k T) * sum over n > C of (n - C) P(load = n)
for T tokens, E experts, k choices and C slots.
"""

from math import lgamma

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SMALLEST_CV = 1e-4
"""Below this the shares are as good as equal, and log-gamma loses the difference."""


def uniform(tokens: int, experts: int, top_k: int, slots: int) -> float:
    """Return the dropped share when tokens choose k distinct experts uniformly.

    An expert's load is Binomial(T, k / E): exact, since a token sends it at most one copy.
    """
    if top_k >= experts:
        return max(0.0, 1.0 - slots / tokens)
    probability = top_k / experts
    log_p = (
        _log_choose(tokens)
        + np.arange(tokens + 1) * np.log(probability)
        + (tokens - np.arange(tokens + 1)) * np.log1p(-probability)
    )
    return _overflow(log_p, tokens, experts, top_k, slots)


def dirichlet(tokens: int, experts: int, top_k: int, slots: int, concentration: float) -> float:
    """Return the dropped share when expert shares are drawn from a symmetric Dirichlet.

    An expert's load is Beta-Binomial(T, a, (E - 1) a) for one choice. With k choices the mean of
    the beta law is raised to k / E and its relative spread kept: exact for k = 1, an
    approximation otherwise.
    """
    if top_k >= experts:
        return max(0.0, 1.0 - slots / tokens)
    mean = top_k / experts
    alpha, beta = _beta_parameters(mean, dirichlet_cv(experts, concentration))
    n: Array = np.arange(tokens + 1, dtype=np.float64)
    log_p = _log_choose(tokens) + _log_beta(n + alpha, tokens - n + beta)
    log_p -= lgamma(alpha) + lgamma(beta) - lgamma(alpha + beta)
    return _overflow(log_p, tokens, experts, top_k, slots)


def dirichlet_cv(experts: int, concentration: float) -> float:
    """Return the coefficient of variation of one share of a symmetric Dirichlet.

    CV^2 = (E - 1) / (E a + 1).
    """
    return float(np.sqrt((experts - 1) / (experts * concentration + 1)))


def concentration_for(experts: int, cv: float) -> float:
    """Return the Dirichlet concentration whose shares have the coefficient of variation `cv`."""
    return max(1e-6, ((experts - 1) / max(cv, SMALLEST_CV) ** 2 - 1) / experts)


def _beta_parameters(mean: float, cv: float) -> tuple[float, float]:
    total = max(1e-9, (1 - mean) / (mean * cv**2) - 1)
    return mean * total, (1 - mean) * total


def _log_gamma(x: Array) -> Array:
    return np.fromiter((lgamma(value) for value in x), dtype=np.float64, count=len(x))


def _log_choose(tokens: int) -> Array:
    log_factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, tokens + 1)))))
    return np.asarray(log_factorial[-1] - log_factorial - log_factorial[::-1])


def _log_beta(a: Array, b: Array) -> Array:
    total = float(a[0] + b[0])
    return _log_gamma(a) + _log_gamma(b) - lgamma(total)


def _overflow(log_p: Array, tokens: int, experts: int, top_k: int, slots: int) -> float:
    if slots >= tokens:
        return 0.0
    over = np.arange(slots + 1, tokens + 1)
    lost = float(np.sum((over - slots) * np.exp(log_p[slots + 1 :])))
    return min(1.0, experts / (top_k * tokens) * lost)
