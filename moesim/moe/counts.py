"""Draws how many tokens each expert gets: k distinct experts a token, exact in mean and variance.

Each layer has shares of its own and a generator of its own, so that adding a layer leaves the
draws of the others as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moesim import rng
from moesim.moe import burst
from moesim.moe.choices import Choices
from moesim.moe.loads import Counts, Shares

_CERTAIN = 1.0 - 1e-9
"""From here on an expert counts as chosen by every token."""
_NOTHING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tokens that a layer routes at once."""

    tokens: int
    top_k: int
    phi: float | tuple[float, ...] | None = None
    """Burst factor of the batch-size law, one for all layers or one each; None: independent."""


def layer_streams(seed: int, name: str, layers: Sequence[int]) -> list[np.random.Generator]:
    """Return a generator for each layer number; its draws do not depend on the other layers."""
    return [rng.stream(seed, f"{name}/layer {layer}") for layer in layers]


def inclusion(shares: Shares, top_k: int) -> Shares:
    """Return the probability that a token chooses an expert: k times its share, at most 1.

    What an expert has beyond 1 goes to the others in proportion to their shares. `shares` is
    [experts] or [layers, experts]; each row of the result sums to k.
    """
    experts = shares.shape[-1]
    if top_k >= experts:
        return np.ones_like(shares)
    rows = np.asarray(shares.reshape(-1, experts) / shares.sum(axis=-1).reshape(-1, 1))
    found = top_k * rows
    for row, weights in zip(found, rows, strict=True):
        _cap(row, weights, top_k)
    return np.asarray(found.reshape(shares.shape))


def _cap(row: Shares, weights: Shares, top_k: int) -> None:
    full = row >= _CERTAIN
    while full.any():
        row[full] = 1.0
        left = weights[~full].sum()
        rest = top_k - int(full.sum())
        equal = np.full(int((~full).sum()), 1.0 / max(1, (~full).sum()))
        row[~full] = rest * (weights[~full] / left if left > 0 else equal)
        more = full | (row >= _CERTAIN)
        if (more == full).all():
            return
        full = more


def draw(inclusions: Shares, batch: Batch, generators: Sequence[np.random.Generator]) -> Counts:
    """Return counts[layer, expert] of a batch; each row sums to tokens * top_k exactly.

    An expert's count is Beta-Binomial(n, A p, A (1 - p)), with A from the burst factor, and
    Binomial(n, p) without one: CV^2(n) follows the batch-size law exactly in expectation from
    burst.FEWEST_TOKENS on, and no expert gets a token twice.

    The design is the ordered pivotal one (Deville and Tille 1998, Biometrika 85) in an order
    drawn for each batch: experts lie on a line as long as k, each unit of it is one choice, and an
    expert that lies across the end of a unit is taken in one of the two only.
    """
    if batch.phi is None:
        designs = np.ones(len(inclusions))
    else:
        designs = burst.design(np.asarray(batch.phi, dtype=np.float64), inclusions)
    layers = zip(inclusions, designs.tolist(), generators, strict=True)
    return np.stack(
        [
            _draw_layer(row, batch.tokens, burst.concentration(batch.tokens, design), generator)
            for row, design, generator in layers
        ]
    )


def draw_counts(
    shares: Shares, tokens: int, top_k: int, generator: np.random.Generator,
    *, phi: float | None = None,
) -> Counts:  # fmt: skip
    """Return the counts of the experts of one layer, whose shares are [experts]; see `draw`."""
    batch = Batch(tokens=tokens, top_k=top_k, phi=phi)
    return np.asarray(draw(inclusion(shares, top_k)[np.newaxis], batch, [generator])[0])


def _draw_layer(
    inclusions: Shares, tokens: int, alike: float, generator: np.random.Generator
) -> Counts:
    counts = np.full(inclusions.shape, tokens, dtype=np.int64)
    open_experts = np.flatnonzero(inclusions < _CERTAIN)
    if len(open_experts):
        order = generator.permutation(open_experts)
        counts[order] = _pivotal(inclusions[order], tokens, alike, generator)
    return counts


def _pivotal(
    inclusions: Shares, tokens: int, alike: float, generator: np.random.Generator
) -> Counts:
    """Return the counts of experts in the order given; their probabilities sum to whole choices."""
    line = np.concatenate(([0.0], np.cumsum(inclusions)))
    choices = round(float(line[-1]))
    if choices == 0:  # experts chosen by every token have taken all k choices
        return np.zeros(len(inclusions), dtype=np.int64)
    line *= choices / line[-1]
    across = np.searchsorted(line[1:], np.arange(1, choices) - _NOTHING)
    counts = np.zeros(len(inclusions), dtype=np.int64)
    first, before, taken = 0, 0.0, 0
    for choice, last in enumerate((*across.tolist(), len(inclusions) - 1)):
        edges = np.clip(line[first : last + 2], choice, choice + 1)
        # the expert before `first` lies across the border: what is over of it is in this choice
        again = _again(float(edges[0]) - choice, before, alike, generator)
        carried = int(generator.binomial(tokens - taken, again)) if again > 0 else 0
        if first:
            counts[first - 1] += carried
        pieces = np.diff(edges)
        chosen = generator.multinomial(tokens - carried, _spread(pieces, alike, generator))
        counts[first : last + 1] = chosen
        first, before, taken = last + 1, float(pieces[-1]), int(chosen[-1])
    return counts


def _again(over: float, before: float, alike: float, generator: np.random.Generator) -> float:
    """Return how likely a token that did not take the expert before the border takes it after."""
    if over <= _NOTHING:
        return 0.0
    rest = 1.0 - before - over
    if rest <= _NOTHING:
        return 1.0
    if np.isinf(alike):
        return over / (1.0 - before)
    return float(generator.beta(alike * over, alike * rest))


def _spread(pieces: Shares, alike: float, generator: np.random.Generator) -> Shares:
    """Return the shares of one choice: as they are, or as tokens that are alike have them."""
    if np.isinf(alike):
        return np.asarray(pieces / pieces.sum())
    return generator.dirichlet(np.maximum(alike * pieces, _NOTHING))


def draw_choices(inclusions: Shares, tokens: int, generator: np.random.Generator) -> Choices:
    """Return k distinct experts for each token of one layer, independently of other tokens.

    Systematic sampling in a random order drawn for each token (Madow 1949): expert e is chosen
    with probability inclusions[e] exactly. Gate weights are unknown and taken as equal.
    """
    experts = len(inclusions)
    top_k = round(float(inclusions.sum()))
    order = np.argsort(generator.random((tokens, experts)), axis=1)
    ends = np.cumsum(inclusions[order], axis=1)
    points = generator.random((tokens, 1)) + np.arange(top_k)
    rows = np.arange(tokens)[:, None] * (top_k + 1.0)
    # one search over all tokens: the line of token t starts at t (k + 1)
    found = np.searchsorted((rows + ends).ravel(), (rows + points).ravel(), side="right")
    found = found.reshape(tokens, top_k) - np.arange(tokens)[:, None] * experts
    found = np.minimum(found, experts - 1)
    chosen = np.take_along_axis(order, found, axis=1)
    return Choices(chosen.astype(np.int64), np.full(chosen.shape, 1.0 / top_k))
