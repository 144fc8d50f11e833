"""What a measured load is like: how uneven, over ranks too, how bursty, how far tokens fan out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.moe import burst, drops
from moesim.moe.loads import Counts
from moesim.moe.traces import Trace, counts_in, counts_of

Array = NDArray[np.float64]

WINDOWS = (16, 32, 64, 128, 256, 512, 1024)
"""Batch sizes over which the batch-size law is fitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStatistics:
    """How uneven the experts of each layer are loaded; every array is [layers]."""

    cv: Array
    """sd / mean over experts, population sd."""
    max_over_mean: Array
    min_over_mean: Array
    gini: Array
    entropy: Array
    """Entropy of the shares over ln E: 1 is even."""
    concentration_moments: Array
    """Concentration of the symmetric Dirichlet with this CV."""
    concentration_ml: Array
    """Concentration of the symmetric Dirichlet that makes these shares most likely."""
    sigma_moments: Array
    """sqrt(ln(1 + cv^2)), the lognormal with this CV."""
    sigma_ml: Array
    """sd of the logarithms, the lognormal that makes these shares most likely."""


def load_statistics(counts: Counts) -> LoadStatistics:
    """Return the statistics of counts[layer, expert].

    In what takes logarithms an expert without any assignment counts as half a one.
    """
    relative = counts / counts.mean(axis=1, keepdims=True)
    cv = relative.std(axis=1)
    filled = np.maximum(counts, 0.5)
    shares = filled / filled.sum(axis=1, keepdims=True)
    experts = counts.shape[1]
    return LoadStatistics(
        cv=cv,
        max_over_mean=relative.max(axis=1),
        min_over_mean=relative.min(axis=1),
        gini=_gini(relative),
        entropy=-(shares * np.log(shares)).sum(axis=1) / np.log(max(2, experts)),
        concentration_moments=np.array([drops.concentration_for(experts, float(v)) for v in cv]),
        concentration_ml=np.array([_dirichlet_ml(row) for row in shares]),
        sigma_moments=np.sqrt(np.log1p(cv**2)),
        sigma_ml=np.log(shares).std(axis=1),
    )


def _gini(relative: Array) -> Array:
    """Return sum over experts, by rising load, of (2 i - E - 1) x_i / (E sum x), i from 1."""
    experts = relative.shape[1]
    places = 2 * np.arange(1, experts + 1) - experts - 1
    return np.asarray((np.sort(relative, axis=1) * places).sum(axis=1) / experts**2)


def _dirichlet_ml(shares: Array) -> float:
    """Return a with psi(E a) - psi(a) = -mean of ln s, by bisection in ln a.

    The left side falls from infinity to ln E, the likelihood of a symmetric Dirichlet has one top.
    """
    experts, wanted = len(shares), -float(np.log(shares).mean())
    low, high = np.log(1e-6), np.log(1e9)
    for _ in range(80):
        middle = (low + high) / 2
        a = float(np.exp(middle))
        if _digamma(experts * a) - _digamma(a) > wanted:
            low = middle
        else:
            high = middle
    return float(np.exp(low))


def _digamma(x: float) -> float:
    """Return psi(x) = d ln Gamma / dx by recurrence to x >= 10 and the asymptotic series."""
    shift = 0.0
    while x < 10:
        shift += 1 / x
        x += 1
    square = 1 / x**2
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
    return float(np.log(x)) - 1 / (2 * x) - series - shift


def rank_imbalance(counts: Counts, ranks: int) -> Array:
    """Return fullest over mean rank, per layer; experts lie on ranks in order."""
    rows = counts.reshape(len(counts), ranks, -1).sum(axis=2)
    return np.asarray(rows.max(axis=1) / rows.mean(axis=1))


def fan_out(trace: Trace, ranks: int) -> Array:
    """Return the distinct ranks that a token reaches in the mean, per layer."""
    where = np.sort(trace.ids // (trace.experts // ranks), axis=2)
    return np.asarray(1.0 + (where[..., 1:] != where[..., :-1]).sum(axis=2).mean(axis=1))


def windows(trace: Trace, tokens: int) -> Counts:
    """Return counts[layer, window, expert] of consecutive windows of `tokens` tokens."""
    layers, total, top_k = trace.ids.shape
    whole = total // tokens
    ids = trace.ids[:, : whole * tokens].reshape(layers * whole, tokens, top_k)
    return counts_in(ids, trace.experts).reshape(layers, whole, trace.experts)


def cv_squares(trace: Trace, sizes: Sequence[int]) -> Array:
    """Return the mean CV^2 of consecutive windows, [batch sizes, layers]."""
    found = [windows(trace, n) for n in sizes]
    return np.stack([((c.std(axis=2) / c.mean(axis=2)) ** 2).mean(axis=1) for c in found])


def phi(trace: Trace) -> Array:
    """Return the burst factor of each layer: what the batch-size law needs to fit the windows.

    The batch sizes are those of WINDOWS of which the trace has two; a trace of fewer than 32
    tokens is too short, and its tokens count as independent.
    """
    _, total, top_k = trace.ids.shape
    sizes = [n for n in WINDOWS if 2 * n <= total]
    counts = counts_of(trace)
    cv = counts.std(axis=1) / counts.mean(axis=1)
    if not sizes or top_k >= trace.experts:
        return burst.independent_phi(cv, trace.experts, top_k)
    noise = np.array([burst.counting_noise(n, trace.experts, top_k) for n in sizes])
    return burst.fit_phi(sizes, cv_squares(trace, sizes), cv, noise)


def locality(trace: Trace) -> Array:
    """Return how many experts a token shares with the one before it in its sequence, per layer.

    Uniform choice shares k^2 / E.
    """
    return _of_shared(trace, _shared(trace))


def repetition(trace: Trace) -> Array:
    """Return how often a token shares an expert with the one before it in its sequence, per layer.

    Uniform choice shares one with probability 1 - binom(E - k, k) / binom(E, k).
    """
    return _of_shared(trace, _shared(trace) > 0)


def _shared(trace: Trace) -> NDArray[np.int64]:
    """Return [layers, tokens - 1]: the experts that a token shares with the one before it."""
    layers, total, top_k = trace.ids.shape
    shared = np.zeros((layers, total - 1), dtype=np.int64)
    for choice in range(top_k):
        same = trace.ids[:, 1:] == trace.ids[:, :-1, choice : choice + 1]
        shared += same.sum(axis=2)
    return shared


def _of_shared(trace: Trace, values: NDArray[np.int64] | NDArray[np.bool_]) -> Array:
    """Return the mean per layer over neighbours within a sequence; nan where there are none."""
    inside = np.ones(values.shape[1], dtype=bool)
    inside[np.cumsum(trace.sequences)[:-1] - 1] = False
    if not inside.any():
        return np.full(len(values), np.nan)
    return np.asarray(values[:, inside].mean(axis=1))


def touched(trace: Trace, tokens: int) -> Array:
    """Return the distinct experts that consecutive windows of `tokens` tokens touch, per layer."""
    return np.asarray((windows(trace, tokens) > 0).sum(axis=2).mean(axis=1))


def correlation(some: Counts, others: Counts) -> Array:
    """Return the correlation over experts of two counts[layer, expert], per layer."""
    a = some - some.mean(axis=1, keepdims=True)
    b = others - others.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.maximum(1e-300, scale))
