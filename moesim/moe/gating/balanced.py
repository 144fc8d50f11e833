"""Rules balanced by construction: expert choice and BASE's balanced assignment."""

import numpy as np
from numpy.typing import NDArray

from moesim.moe.choices import Choices
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.scores import Array, best, logits, sigmoid, softmax

Ids = NDArray[np.int64]

_PRECISION = 1e-3
"""Smallest step of a bid, in units of the spread of the scores."""


def tokens_taken(gate: Gate, tokens: int) -> int:
    """Return the tokens C = round(T * CF / E) that each expert takes, at most all.

    Source: google/flaxformer flaxformer/architectures/moe/moe_layers.py:175-178 @399ea3a8.
    """
    return min(tokens, round(gate.capacity_factor * tokens / gate.experts))


def expert_choice(
    gate: Gate, shares: Array, tokens: int, generator: np.random.Generator
) -> Choices:
    """Return the tokens that each expert takes, its top C by probability: 0 to E experts per token.

    Weights are the probabilities, a softmax over experts. `tokens` are one routing group.

    Source: google/flaxformer flaxformer/architectures/moe/routing.py ExpertsChooseMaskedRouter
    @399ea3a8; not usable for autoregressive decoding, as the same file warns.
    """
    probability = softmax(logits(gate, shares, tokens, generator))
    taken = tokens_taken(gate, tokens)
    if taken == 0:
        return Choices(np.full((tokens, 1), -1, dtype=np.int64), np.zeros((tokens, 1)))
    wanted = np.zeros(probability.shape, dtype=bool)
    np.put_along_axis(wanted, best(probability.T, taken).T, True, axis=0)
    width = max(1, int(wanted.sum(axis=1).max()))
    weights = np.where(wanted, probability, -1.0)
    experts = best(weights, width)
    found = np.take_along_axis(weights, experts, axis=1)
    return Choices(np.where(found < 0, -1, experts), np.maximum(found, 0.0))


def base(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return one expert per token, T / E tokens each, with the largest sum of scores.

    The weight is the sigmoid of the score. Where E does not divide T the first experts take one
    more. This is training; at test BASE takes each token's best expert (switch_top1).

    Source: Lewis et al. 2021, BASE layers (arXiv 2103.16716).
    """
    found = logits(gate, shares, tokens, generator)
    each, more = divmod(tokens, gate.experts)
    room = each + (np.arange(gate.experts) < more).astype(np.int64)
    expert = assign_balanced(found, room)[:, np.newaxis]
    return Choices(expert, sigmoid(np.take_along_axis(found, expert, axis=1)))


def assign_balanced(scores: Array, room: Ids, precision: float = _PRECISION) -> Ids:
    """Return one expert per token with the largest sum of scores, `room` tokens each.

    Bertsekas' auction for the transportation problem, all unassigned tokens bidding at once: each
    bids for the expert worth most to it, up to what makes the second as good, plus a step; an
    expert keeps its highest bids and asks the lowest of them. The sum is within
    tokens * precision * sd(scores) of the largest; `room` is met exactly.

    Source: D. Bertsekas, "The auction algorithm for assignment and other network flow problems"
    (Interfaces 20, 1990); BASE layers use the same algorithm.
    """
    tokens, experts = scores.shape
    step = precision * max(float(scores.std()), 1e-12)
    price = np.zeros(experts)
    expert = np.full(tokens, -1, dtype=np.int64)
    bid = np.zeros(tokens)
    free = np.arange(tokens)
    while len(free):
        worth = scores[free] - price
        goal = worth.argmax(axis=1)
        rows = np.arange(len(free))
        top = worth[rows, goal]
        worth[rows, goal] = -np.inf
        second = worth.max(axis=1) if experts > 1 else top
        expert[free], bid[free] = goal, price[goal] + (top - second) + step
        for e in np.unique(goal):
            _keep_highest(int(e), int(room[e]), expert, bid, price)
        free = np.flatnonzero(expert < 0)
    return expert


def _keep_highest(e: int, room: int, expert: Ids, bid: Array, price: Array) -> None:
    """Let expert `e` keep its highest bids; full, it asks for the lowest that it keeps."""
    holders = np.flatnonzero(expert == e)
    if len(holders) < room:
        return
    order = holders[np.argsort(-bid[holders], kind="stable")]
    expert[order[room:]] = -1
    price[e] = bid[order[room - 1]] if room else np.inf
