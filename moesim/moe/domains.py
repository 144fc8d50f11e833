"""Traffic of several domains: each has expert shares of its own, and a batch mixes them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.moe.counts import Batch, draw, inclusion
from moesim.moe.loads import Counts, Shares, sigma_of

Streams = Sequence[Sequence[np.random.Generator]]
"""One generator for each [domain][layer]."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixture:
    """Expert shares of each domain, and how much of the traffic each domain is."""

    shares: Shares
    """[domains, layers, experts]."""
    weights: tuple[float, ...]
    """Share of the sequences that each domain has; need not sum to 1."""
    sequence_tokens: int = 1
    """Tokens of a sequence in one batch, all of one domain; 1 in decode."""
    phi: tuple[float | tuple[float, ...] | None, ...] | None = None
    """Burst factor of the tokens inside each domain; None: independent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A Markov chain over domains: mostly the domain of the step before, at times a new one."""

    weights: tuple[float, ...]
    """Long-run share of the steps that each domain has; need not sum to 1."""
    stay: float
    """Probability that a step keeps its predecessor's domain without drawing anew."""


def mixed(mixture: Mixture) -> Shares:
    """Return shares[layer, expert] of the whole traffic: the weighted mean over domains."""
    return np.asarray(np.tensordot(_probabilities(mixture.weights), mixture.shares, axes=1))


def split(mixture: Mixture, tokens: int, generator: np.random.Generator) -> Counts:
    """Return how many of the tokens each domain has: whole sequences, drawn independently.

    The tokens beyond whole sequences are one shorter sequence.
    """
    weights = _probabilities(mixture.weights)
    whole, rest = divmod(tokens, mixture.sequence_tokens)
    found = mixture.sequence_tokens * generator.multinomial(whole, weights)
    if rest:
        found[int(generator.choice(len(weights), p=weights))] += rest
    return np.asarray(found, dtype=np.int64)


def draw_split(mixture: Mixture, batch: Batch, tokens: Counts, streams: Streams) -> Counts:
    """Return counts[layer, expert] of a batch with so many tokens of each domain.

    Streams are [domain][layer]. `split` gives the tokens, once for all layers, since a sequence
    takes its domain through the whole network. `batch.phi` holds for domains without a phi of
    their own.
    """
    total = np.zeros(mixture.shares.shape[1:], dtype=np.int64)
    phis = mixture.phi or (batch.phi,) * len(tokens)
    parts = zip(mixture.shares, phis, tokens.tolist(), streams, strict=True)
    for shares, phi, n, generators in parts:
        if n:
            part = Batch(tokens=n, top_k=batch.top_k, phi=phi)
            total += draw(inclusion(shares, batch.top_k), part, generators)
    return total


def domain_steps(drift: Drift, steps: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return the domain of each step.

    The chain starts in its long-run distribution; a domain of weight w lasts 1 / ((1 - stay)
    (1 - w)) steps in the mean. Switching, not a slow random walk, is what real loads show: halves
    of one domain correlate by 0.96 to 0.998, domains by 0.04 to 0.23 (DeepSeek-V2-Lite); hot
    experts stay for tens to hundreds of iterations (TensorRT-LLM tech_blog/blog4 @1d263f15).
    """
    weights = _probabilities(drift.weights)
    draws = generator.random((steps, 2))  # of a step each, so that more steps leave the first alone
    fresh = np.minimum(np.searchsorted(np.cumsum(weights), draws[:, 0], "right"), len(weights) - 1)
    new = draws[:, 1] >= drift.stay
    if steps:
        new[0] = True
    last = np.maximum.accumulate(np.where(new, np.arange(steps), 0))
    return np.asarray(fresh[last], dtype=np.int64)


DOMAIN_CORRELATION = 0.13
"""Correlation of the loads of two domains: the middle of the 0.04 to 0.23 that DeepSeek-V2-Lite's
tasks show (deepseek-ai/ESFT @579a7711); four such domains mix to a CV of 0.49, the real tasks to
0.51."""


def domain_shares(
    cvs: Sequence[float],
    experts: int,
    layers: Sequence[np.random.Generator],
    *,
    correlation: float = DOMAIN_CORRELATION,
) -> Shares:
    """Return shares[domain, layer, expert] of lognormal loads that correlate between domains.

    Domain d has weights exp(sigma (sqrt(r) z + sqrt(1 - r) z_d)) with z common to all domains and
    r = ln(1 + c (exp(sigma^2) - 1)) / sigma^2, sigma being its own, so that the weights of two
    domains of equal spread have the correlation c (measured: 0.04 to 0.23).
    """
    sigma = np.maximum(1e-9, [sigma_of(cv) for cv in cvs])[:, np.newaxis]
    common = np.log1p(correlation * np.expm1(sigma**2)) / sigma**2
    rows = []
    for generator in layers:
        z = generator.standard_normal((len(cvs) + 1, experts))
        weights = np.exp(sigma * (np.sqrt(common) * z[0] + np.sqrt(1 - common) * z[1:]))
        rows.append(weights / weights.sum(axis=1, keepdims=True))
    return np.stack(rows, axis=1)


def _probabilities(weights: Sequence[float]) -> Shares:
    found = np.asarray(weights, dtype=np.float64)
    if not len(found) or not np.isfinite(found).all() or (found < 0).any() or found.sum() <= 0:
        raise ValueError("weights of domains are finite, at least 0 and not all 0")
    return np.asarray(found / found.sum())
