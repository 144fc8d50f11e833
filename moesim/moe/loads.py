"""How unevenly the router spreads tokens over experts: laws from which counts are drawn."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.moe import drops

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLaw:
    """The law of expert shares; `cv` is the coefficient of variation of a share, sd / mean."""

    law: str = "even"
    cv: float = 0.0


def even(experts: int, cv: float, generator: np.random.Generator) -> Shares:
    """Return equal shares: forced balance, as most vendor tables are measured."""
    del cv, generator
    return np.full(experts, 1.0 / experts)


def uniform(experts: int, cv: float, generator: np.random.Generator) -> Shares:
    """Return equal shares; counts drawn from them still scatter as independent choices do."""
    return even(experts, cv, generator)


def dirichlet(experts: int, cv: float, generator: np.random.Generator) -> Shares:
    """Return shares from a symmetric Dirichlet with the given coefficient of variation."""
    if cv < drops.SMALLEST_CV or experts == 1:
        return even(experts, cv, generator)
    concentration = drops.concentration_for(experts, cv)
    # Gamma(a) = Gamma(a + 1) U^(1/a), in logarithms: small concentrations underflow otherwise
    logs = np.log(generator.standard_gamma(concentration + 1.0, experts))
    logs += np.log(1.0 - generator.random(experts)) / concentration
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def lognormal(experts: int, cv: float, generator: np.random.Generator) -> Shares:
    """Return normalised lognormal shares, sigma^2 = ln(1 + cv^2).

    The heavier tail fits inference loads better than a Dirichlet: sigma 1.05 comes within 7 % of
    the four DeepSeek-R1 figures of NVIDIA/TensorRT-LLM tech_blog/blog4, table 1, @1d263f15.
    """
    sigma = float(np.sqrt(np.log1p(cv**2)))
    weights = np.exp(sigma * generator.standard_normal(experts))
    return np.asarray(weights / weights.sum())


SHARES: dict[str, Callable[[int, float, np.random.Generator], Shares]] = {
    "even": even,
    "uniform": uniform,
    "dirichlet": dirichlet,
    "lognormal": lognormal,
}
"""The load laws by their name in YAML."""


def draw_shares(law: LoadLaw, experts: int, generator: np.random.Generator) -> Shares:
    """Return the share of the tokens that each expert attracts in one layer."""
    return SHARES[law.law](experts, law.cv, generator)


def even_counts(tokens: int, experts: int, top_k: int, first: int = 0) -> Counts:
    """Return counts that differ by one at most; the larger ones start at expert `first`."""
    total = tokens * top_k
    counts = np.full(experts, total // experts, dtype=np.int64)
    counts[(first + np.arange(total % experts)) % experts] += 1
    return counts


def draw_counts(shares: Shares, tokens: int, top_k: int, generator: np.random.Generator) -> Counts:
    """Return how many of tokens * top_k assignments each expert gets; they sum to exactly that.

    A token's choices are distinct, so no count exceeds `tokens`, and counts scatter less than
    those of independent choices: the variance is T k s (1 - k s) for a share s, which a
    multinomial draw, T k s (1 - s), is shrunk to.
    """
    total = tokens * top_k
    mean = total * shares
    drawn = generator.multinomial(total, shares)
    spread = np.sqrt(np.maximum(0.0, 1 - top_k * shares) / np.maximum(1e-12, 1 - shares))
    exact = np.maximum(0.0, mean + spread * (drawn - mean))
    return _at_most_one_copy(whole(exact * (total / exact.sum()), total), tokens)


def whole(exact: Shares, total: int) -> Counts:
    """Round to whole numbers that sum to `total`, by largest remainder."""
    counts = np.floor(exact).astype(np.int64)
    missing = total - int(counts.sum())
    largest = np.argsort(counts - exact, kind="stable")[:missing]
    counts[largest] += 1
    return counts


def _at_most_one_copy(counts: Counts, tokens: int) -> Counts:
    """Move what an expert got beyond one copy of every token to the least loaded others."""
    excess = int(np.maximum(counts - tokens, 0).sum())
    counts = np.minimum(counts, tokens)
    for expert in np.argsort(counts, kind="stable"):
        if excess == 0:
            break
        moved = min(excess, tokens - int(counts[expert]))
        counts[expert] += moved
        excess -= moved
    return counts


def rank_rows(counts: Counts, ranks: int) -> Counts:
    """Return rows[rank, local expert] of the contiguous placement of experts on ranks."""
    return counts.reshape(ranks, -1)


def imbalance(counts: Counts) -> float:
    """Return fullest over mean."""
    mean = float(counts.mean())
    return float(counts.max()) / mean if mean > 0 else 1.0
