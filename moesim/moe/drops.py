"""The share of assignments that find no slot, in closed form.

D = E / (k T) * sum over n > C of (n - C) P(load = n)
for T tokens, E experts, k choices and C slots. Who is dropped does not matter to it: an expert
keeps min(n, C) of its n assignments by any policy.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.moe.load_pmf import Pmf, beta_binomial, binomial, overflow, window

Array = NDArray[np.float64]

SMALLEST_CV = 1e-4
"""Below this the shares are as good as equal."""


def uniform(tokens: int, experts: int, top_k: int, slots: int) -> float:
    """Return the dropped share when tokens choose k distinct experts uniformly.

    An expert's load is Binomial(T, k / E): exact, since a token sends it at most one copy.
    """
    return _dropped(binomial(tokens, top_k / experts), experts / (top_k * tokens), slots)


def of_inclusions(tokens: int, inclusions: Array, slots: int) -> float:
    """Return the dropped share when a token chooses expert e with probability p_e, as measured.

    Loads are Binomial(T, p_e): D = sum over e of E[(n_e - C)+] / (T sum of p_e), exact whatever
    the choices of one token depend on each other.
    """
    beyond = sum(overflow(binomial(tokens, float(p)), slots) for p in inclusions)
    return float(min(1.0, beyond / (tokens * inclusions.sum())))


def dirichlet(tokens: int, experts: int, top_k: int, slots: int, concentration: float) -> float:
    """Return the dropped share when expert shares are drawn from a symmetric Dirichlet.

    An expert's load is Beta-Binomial(T, a, (E - 1) a) for one choice. With k choices the mean of
    the beta law is raised to k / E and its relative spread kept: exact for k = 1, an
    approximation otherwise.
    """
    if top_k >= experts:
        return uniform(tokens, experts, top_k, slots)
    alpha, beta = beta_parameters(top_k / experts, dirichlet_cv(experts, concentration))
    return _dropped(beta_binomial(tokens, alpha, beta), experts / (top_k * tokens), slots)


def device_uniform(tokens: int, experts: int, top_k: int, *, devices: int, budget: int) -> float:
    """Return the dropped share when uniform choices share a budget per device.

    A token sends a device of E / D experts a hypergeometric number of copies; the load of a device
    is the sum over T tokens, and D = devices / (k T) * E[(load - budget)+].
    """
    load = device_load(tokens, experts, top_k, experts // devices)
    return _dropped(load, devices / (top_k * tokens), budget)


def device_load(tokens: int, experts: int, top_k: int, local: int) -> Pmf:
    """Return the law of the rows of a device with `local` of the experts, uniform choices.

    The characteristic function of one token's copies, to the power of T, is sampled at as many
    points as the window is wide; what lies outside is too small to fold back.
    """
    copies = _hypergeometric(experts, local, top_k)
    j = np.arange(len(copies), dtype=np.float64)
    mean = float(copies @ j)
    deviation = float(np.sqrt(tokens * max(0.0, float(copies @ j**2) - mean**2)))
    # copies come up to k at once, so the window of single ones is widened by k
    first, last = window(tokens * mean, deviation * top_k, tokens * top_k)
    width = last - first + 1
    angles = 2 * np.pi * np.arange(width) / width
    one = np.exp(1j * np.outer(angles, j - mean)) @ copies
    whole = one**tokens * np.exp(1j * angles * (tokens * mean - first))
    p = np.maximum(np.fft.fft(whole).real / width, 0.0)
    return Pmf(first, p / p.sum())


def dirichlet_cv(experts: int, concentration: float) -> float:
    """Return the coefficient of variation of one share of a symmetric Dirichlet.

    CV^2 = (E - 1) / (E a + 1).
    """
    return float(np.sqrt((experts - 1) / (experts * concentration + 1)))


def concentration_for(experts: int, cv: float) -> float:
    """Return the Dirichlet concentration whose shares have the coefficient of variation `cv`."""
    return max(1e-6, ((experts - 1) / max(cv, SMALLEST_CV) ** 2 - 1) / experts)


def beta_parameters(mean: float, cv: float) -> tuple[float, float]:
    """Return the beta law of this mean and coefficient of variation."""
    total = max(1e-9, (1 - mean) / (mean * cv**2) - 1)
    return mean * total, (1 - mean) * total


def _dropped(load: Pmf, scale: float, slots: int) -> float:
    return min(1.0, scale * overflow(load, slots))


def _hypergeometric(experts: int, local: int, top_k: int) -> Array:
    """Return P(j of k distinct choices fall on `local` of the experts), j = 0..min(k, local)."""
    outside, most = experts - local, min(top_k, local)
    low = max(0, top_k - outside)
    j = np.arange(low, most, dtype=np.float64)
    ratios = (local - j) * (top_k - j) / ((j + 1) * (outside - top_k + j + 1))
    p = np.cumprod(np.concatenate(([1.0], ratios)))
    return np.concatenate((np.zeros(low), p / p.sum()))
