"""How many distinct experts a batch touches: what sets the weight bytes read in decode."""

from math import lgamma

import numpy as np

from moesim.moe import burst
from moesim.moe.loads import Shares


def uniform(tokens: float, experts: int, top_k: int) -> float:
    """Return E (1 - (1 - k/E)^B) for B tokens that choose uniformly: an upper bound."""
    if top_k >= experts:
        return float(experts) if tokens > 0 else 0.0
    return float(-experts * np.expm1(tokens * np.log1p(-top_k / experts)))


def expected(inclusions: Shares, tokens: int, phi: float | None = None) -> Shares:
    """Return the distinct experts that B tokens touch, per layer: `bursty`, or `independent`.

    A layer then reads the weights of that share of its experts.
    """
    return independent(inclusions, tokens) if phi is None else bursty(inclusions, tokens, phi)


def independent(inclusions: Shares, tokens: int) -> Shares:
    """Return sum over experts of 1 - (1 - p)^B, per layer, for independent tokens.

    p is the probability that a token chooses the expert (counts.inclusion). Exact.
    """
    return np.asarray((1.0 - (1.0 - inclusions) ** tokens).sum(axis=-1))


def bursty(inclusions: Shares, tokens: int, phi: Shares | float) -> Shares:
    """Return the distinct experts that B tokens of one run of text touch, per layer.

    An expert's count is Beta-Binomial(B, A p, A (1 - p)) with A from the burst factor phi, as
    counts.draw draws it, so P(untouched) = Gamma(A) Gamma(A (1-p) + B) / (Gamma(A (1-p))
    Gamma(A + B)). Real DeepSeek-V2-Lite: independent tokens of one task 42.8 and of four tasks
    47.3 of 64 at B = 16, 37.7 in order; uniform choice would touch 50.8.
    """
    rows = inclusions.reshape(-1, inclusions.shape[-1])
    designs = np.broadcast_to(burst.design(phi, rows), (len(rows),))
    found = [
        _touched(row, tokens, burst.concentration(tokens, float(design)))
        for row, design in zip(rows, designs, strict=True)
    ]
    return np.asarray(found).reshape(inclusions.shape[:-1])


def _touched(row: Shares, tokens: int, alike: float) -> float:
    if np.isinf(alike):
        return float(independent(row, tokens))
    total = lgamma(alike + tokens) - lgamma(alike)
    touched = 0.0
    for p in row:
        rest = alike * (1.0 - float(p))
        untouched = lgamma(rest + tokens) - lgamma(rest) - total if rest > 0 else -np.inf
        touched += -float(np.expm1(untouched))
    return touched
