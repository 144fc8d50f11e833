"""Rows of each expert of the busiest rank when experts are popular by a power law.

Popularity x has density x^-a on [1, 0.8 tokens], or on [0.01, 2] with no more choices than experts;
it is scaled to tokens * top_k rows, rounded to whole ones, and the rank with most rows is timed.
Source: NVIDIA aiconfigurator, collector/helper.py, power_law_logits_v3; how the rows that rounding
leaves over are handed out differs between versions, and is read off the times with few tokens.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from moesim import rng
from moesim.cost.curves import Array
from moesim.cost.families.moe_groups import grouped_rows
from moesim.moe.packing import pack, replicate

_DRAWS = 64
"""The collector averages five draws. The expected load is what is asked for: the mean of 64 draws
is within a hundredth of it or two, where that of five differs by 4 % (its rank with most rows)."""


SPREAD, FIRST, MOST = "spread", "first", "most"
LEFT_OVER = (SPREAD, FIRST, MOST)
"""Who gets the rows that rounding leaves over, one each: experts without any, spaced evenly over
all of them, or those of lowest number, so that they crowd on the first rank; or the experts with
most rows. With 8 rows for 256 experts on 32 ranks the busiest rank reads the weights of 1 expert,
or of all 8; with 32 rows all experts together read those of 32 experts, or of some 18."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a row of a table says of its load."""

    tokens: float
    """Of the whole expert-parallel group."""
    top_k: float
    experts: float
    ranks: float
    exponent: float
    """Of the power law."""
    left_over: str = SPREAD
    """One of LEFT_OVER."""
    grouped: bool = False
    """Whether tokens are limited to groups of experts after the draw (`moe_groups`)."""
    slots: float = 0.0
    """Where given, EPLB places the experts in so many slots, the surplus for copies of hot ones."""


def busiest_rows(draw: Draw) -> Array:
    """Return [draws, experts of a rank]: the rows of each expert of the rank with most.

    The same arguments give the same draws, whatever the ranks.
    """
    rows = _rows(draw.tokens, draw.top_k, draw.experts, draw.exponent, draw.left_over)
    if draw.slots:
        return _busiest(_placed(rows, int(draw.slots), int(draw.ranks)))
    local = max(1, int(draw.experts / draw.ranks))
    ranks = rows.shape[1] // local
    of_ranks = rows[:, : ranks * local].reshape(len(rows), ranks, local)
    return _after_grouping(of_ranks, int(draw.tokens)) if draw.grouped else _busiest(of_ranks)


_GROUPED_DRAWS = 16
"""Draws whose tokens are followed one by one."""


def _after_grouping(of_ranks: Array, tokens: int) -> Array:
    """Return the rows of the rank that was offered most: it changes places with the first one."""
    found = []
    for ranks in of_ranks[:_GROUPED_DRAWS]:
        busiest = int(ranks.sum(axis=1).argmax())
        order = np.arange(len(ranks))
        order[[0, busiest]] = busiest, 0
        found.append(grouped_rows(ranks[order].ravel(), tokens)[: ranks.shape[1]])
    return np.asarray(found, dtype=np.float64)


@lru_cache(maxsize=16)
def _rows(tokens: float, top_k: float, experts: float, exponent: float, left_over: str) -> Array:
    count, pairs = int(experts), round(tokens * top_k)
    low, high = (1.0, max(0.8 * tokens, 1.0 + 1e-6)) if pairs > count else (0.01, 2.0)
    generator = rng.stream(0, f"power law {tokens} {top_k} {experts} {exponent}")
    power = 1.0 - exponent if abs(exponent - 1.0) > 1e-6 else -1e-6
    share = generator.random((_DRAWS, count))
    popularity = ((high**power - low**power) * share + low**power) ** (1.0 / power)
    wanted = popularity / popularity.sum(axis=1, keepdims=True) * pairs
    # a token chooses an expert once
    return np.minimum(_whole(np.round(wanted), pairs, left_over), max(1.0, tokens))


def _whole(rows: Array, total: int, left_over: str) -> Array:
    """Return rows of the right sum: one more for some experts, or one less.

    Missing rows go to experts with none while there are enough of those, else to any.
    """
    missing = np.rint(total - rows.sum(axis=1, keepdims=True))
    empty = rows == 0
    enough = empty.sum(axis=1, keepdims=True) >= missing
    chosen = np.where(missing > 0, empty | ~enough, ~empty)
    number, among = np.cumsum(chosen, axis=1) - 1, chosen.sum(axis=1, keepdims=True)
    wanted = np.minimum(np.abs(missing), among)
    if left_over == MOST:  # from the largest downwards, or from the smallest upwards
        key = np.where(missing > 0, -rows, np.where(empty, np.inf, rows))
        order = np.argsort(key, axis=1, kind="stable")
        changed = np.argsort(order, axis=1, kind="stable") < wanted
    elif left_over == FIRST:
        changed = chosen & (number < wanted)
    else:  # the i-th goes to number i * among / wanted, rounded down
        turn = np.ceil(number * wanted / np.maximum(among, 1))
        changed = chosen & (turn * among < (number + 1) * wanted)
    return np.asarray(rows + np.sign(missing) * changed, dtype=np.float64)


def _busiest(rows: Array) -> Array:
    """Return [draws, local] of [draws, ranks, local]: the rank with most rows."""
    busiest = rows.sum(axis=2).argmax(axis=1)
    return np.asarray(rows[np.arange(len(rows)), busiest], dtype=np.float64)


def _placed(rows: Array, slots: int, ranks: int) -> Array:
    """Return [draws, ranks, slots of a rank] with the rows of an expert split over its copies."""
    draws, experts = rows.shape
    expert_of = replicate(rows, max(slots, experts))
    copies = np.apply_along_axis(np.bincount, 1, expert_of, minlength=experts)
    each = np.take_along_axis(rows / copies, expert_of, axis=1)
    room = -(-each.shape[1] // ranks)
    slot = pack(each, ranks, room)
    filled = np.take_along_axis(each, slot.reshape(draws, -1).clip(min=0), axis=1)
    return np.where(slot >= 0, filled.reshape(slot.shape), 0.0)
