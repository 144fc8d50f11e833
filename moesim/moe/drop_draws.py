"""Dropped shares by Monte Carlo, for load laws that have no closed form.

Counts are drawn, not tokens: for top-1 they are exactly those of tokens that choose one by one,
and for uniform top-k too. For skewed top-k the experts' loads are drawn independently of each
other, Binomial(T, k share): the mean, which rests on each load alone, is exact, but the loads of
one draw do not sum to k T and shares scatter more from draw to draw than routed ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.moe.choices import Choices
from moesim.moe.keeping import keep
from moesim.moe.loads import LoadLaw, draw_shares

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """One routing group: tokens, experts, choices, and the law of the shares."""

    tokens: int
    experts: int
    top_k: int
    law: LoadLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over independent draws and its standard error."""

    mean: float
    standard_error: float
    draws: int


def drop_estimate(
    routing: Routing, slots: int, draws: int, generator: np.random.Generator
) -> Estimate:
    """Return the dropped share of assignments; each draw has shares of its own."""
    lost = np.maximum(draw_loads(routing, draws, generator) - slots, 0).sum(axis=1)
    return estimate(lost / (routing.tokens * routing.top_k))


def device_drop_estimate(
    routing: Routing, draws: int, generator: np.random.Generator, *, devices: int, budget: int
) -> Estimate:
    """Return the dropped share where the experts of a device, in order, share a budget."""
    loads = draw_loads(routing, draws, generator).reshape(draws, devices, -1).sum(axis=2)
    return estimate(np.maximum(loads - budget, 0).sum(axis=1) / (routing.tokens * routing.top_k))


def estimate(found: Array) -> Estimate:
    """Return the mean of independent values and its standard error."""
    error = float(found.std(ddof=1)) / len(found) ** 0.5
    return Estimate(mean=float(found.mean()), standard_error=error, draws=len(found))


def draw_loads(routing: Routing, draws: int, generator: np.random.Generator) -> Counts:
    """Return loads [draw, expert], `draws` times with new shares."""
    tokens, experts, top_k, law = routing.tokens, routing.experts, routing.top_k, routing.law
    if law.law == "even":
        whole, more = divmod(tokens * top_k, experts)
        return np.broadcast_to(whole + (np.arange(experts) < more), (draws, experts))
    if law.law == "uniform" and top_k > 1:
        return _uniform_loads(routing, draws, generator)
    shares = np.stack([draw_shares(law, experts, generator) for _ in range(draws)])
    if top_k == 1:
        return generator.multinomial(tokens, shares)
    return generator.binomial(tokens, inclusion(shares, top_k))


def inclusion(shares: Array, top_k: int) -> Array:
    """Return how likely a token has each expert among its k distinct choices: k times its share.

    No probability exceeds 1; what is beyond goes to the others in proportion to their shares.
    """
    found = top_k * shares
    for _ in range(top_k):
        full = found >= 1
        if not np.any(found > 1):
            break
        open_share = np.where(full, 0.0, shares)
        wanted = top_k - full.sum(axis=1, keepdims=True)
        total = open_share.sum(axis=1, keepdims=True)
        found = np.where(full, 1.0, open_share * wanted / np.where(total > 0, total, 1.0))
    return np.minimum(found, 1.0)


def _uniform_loads(routing: Routing, draws: int, generator: np.random.Generator) -> Counts:
    """Return exact loads of uniform distinct choices, expert by expert.

    A token with r choices left takes the next of m experts with probability r / m, so it is enough
    to know how many tokens have 0, 1, ... k choices left.
    """
    experts, top_k = routing.experts, routing.top_k
    left = np.zeros((top_k + 1, draws), dtype=np.int64)
    left[top_k] = routing.tokens
    loads = np.empty((draws, experts), dtype=np.int64)
    chances = np.arange(1, top_k + 1)[:, None]
    for expert in range(experts):
        taken = generator.binomial(left[1:], np.minimum(1.0, chances / (experts - expert)))
        loads[:, expert] = taken.sum(axis=0)
        left[1:] -= taken
        left[:-1] += taken
    return loads


def draw_choices(shares: Array, tokens: int, top_k: int, generator: np.random.Generator) -> Choices:
    """Return choices without repetition: the k largest of log share + Gumbel noise.

    The first choice falls on an expert with its share, the next with the shares of the rest. The
    weights are the softmax of the chosen scores.
    """
    with np.errstate(divide="ignore"):
        scores = np.log(shares) + generator.gumbel(size=(tokens, len(shares)))
    experts = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    chosen = np.take_along_axis(scores, experts, axis=1)
    weights = np.exp(chosen - chosen[:, :1])
    return Choices(experts, weights / weights.sum(axis=1, keepdims=True))


def drops_by_position(
    routing: Routing,
    slots: int,
    draws: int,
    generator: np.random.Generator,
    *,
    policy: str = "position",
    by_choice: bool = False,
) -> Array:
    """Return the dropped share of a token's choices by its position, tokens routed one by one."""
    lost = np.zeros(routing.tokens)
    for _ in range(draws):
        shares = draw_shares(routing.law, routing.experts, generator)
        choices = draw_choices(shares, routing.tokens, routing.top_k, generator)
        lost += (~keep(choices, slots, policy, generator, by_choice=by_choice)).sum(axis=1)
    return lost / (draws * routing.top_k)
