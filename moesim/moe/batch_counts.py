"""Draws the counts of many batches of one layer at once: as `counts.draw`, its arrays one axis up.

The shares of the experts are the same in all batches; the tokens are drawn anew in each. The order
in which experts lie on the line is drawn once for all: it touches the covariance of neighbours
only, never an expert's own mean and variance.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.moe import burst
from moesim.moe.counts import inclusion
from moesim.moe.loads import Counts, Shares

_CERTAIN = 1.0 - 1e-9
"""From here on an expert counts as chosen by every token."""
_NOTHING = 1e-12

Sizes = NDArray[np.int64]


def draw_batches(
    shares: Shares, sizes: Sizes, top_k: int, generator: np.random.Generator,
    *, phi: float | None = None,
) -> Counts:  # fmt: skip
    """Return counts[batch, expert] of batches of so many tokens; a row sums to tokens * top_k.

    An expert's count has the law that `counts.draw` states: Binomial(n, p), or Beta-Binomial with a
    burst factor.
    """
    chances = inclusion(shares, top_k)
    design = 1.0 if phi is None else float(burst.design(np.asarray([phi]), chances[np.newaxis])[0])
    alike = np.array([burst.concentration(int(tokens), design) for tokens in sizes])
    found = np.repeat(sizes[:, np.newaxis], len(chances), axis=1)
    open_experts = np.flatnonzero(chances < _CERTAIN)
    if len(open_experts):
        order = generator.permutation(open_experts)
        found[:, order] = _pivotal(chances[order], sizes, alike, generator)
    return found


def _pivotal(
    chances: Shares, sizes: Sizes, alike: Shares, generator: np.random.Generator
) -> Counts:
    """Return the counts [batch, expert] of experts in the order given."""
    line = np.concatenate(([0.0], np.cumsum(chances)))
    choices = round(float(line[-1]))
    counts = np.zeros((len(sizes), len(chances)), dtype=np.int64)
    if choices == 0:  # experts chosen by every token have taken all k choices
        return counts
    line *= choices / line[-1]
    across = np.searchsorted(line[1:], np.arange(1, choices) - _NOTHING)
    first, before, taken = 0, 0.0, np.zeros_like(sizes)
    for choice, last in enumerate((*across.tolist(), len(chances) - 1)):
        edges = np.clip(line[first : last + 2], choice, choice + 1)
        # the expert before `first` lies across the border: what is over of it is in this choice
        again = _again(float(edges[0]) - choice, before, alike, generator)
        carried = generator.binomial(sizes - taken, again)
        if first:
            counts[:, first - 1] += carried
        pieces = np.diff(edges)
        chosen = generator.multinomial(sizes - carried, _spread(pieces, alike, generator))
        counts[:, first : last + 1] = chosen
        first, before, taken = last + 1, float(pieces[-1]), chosen[:, -1]
    return counts


def _again(
    over: float, before: float, alike: Shares, generator: np.random.Generator
) -> float | Shares:
    """Return how likely a token that did not take the expert before the border takes it after."""
    if over <= _NOTHING:
        return 0.0
    rest = 1.0 - before - over
    if rest <= _NOTHING:
        return 1.0
    if np.isinf(alike).all():
        return over / (1.0 - before)
    return generator.beta(alike * over, alike * rest)


def _spread(pieces: Shares, alike: Shares, generator: np.random.Generator) -> Shares:
    """Return the shares of one choice: as they are, or as tokens that are alike have them."""
    if np.isinf(alike).all():
        return np.asarray(pieces / pieces.sum())
    # gammas over their sum are Dirichlet; one row for each batch
    drawn = generator.standard_gamma(np.maximum(np.multiply.outer(alike, pieces), _NOTHING))
    total = drawn.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, drawn / np.where(total > 0, total, 1.0), _one(pieces)))


def _one(pieces: Shares) -> Shares:
    """Return all of a choice on its largest piece, for gammas that underflow."""
    return np.asarray(np.arange(len(pieces)) == int(pieces.argmax()), dtype=np.float64)
