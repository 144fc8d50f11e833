"""Whom the capacity drops, token by token, in one routing group of the first MoE layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim import rng
from moesim.moe.assignment import Router
from moesim.moe.likely_drops import Likely, likely_drops
from moesim.moe.loads import Shares
from moesim.moe.token_drops import MOST_SCORES, Lost, Placed, Queue, lost, place, queue

BINS = 20
"""Parts of a group, and of a sequence, by which drops are counted."""
_MOST_GROUPS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DropPart:
    """What one part of the choices lost; padding tokens are left out."""

    by: str
    """all, position (in the routing group), sequence (position in the sequence) or choice."""
    part: int
    """Number of the part; of choices, the first is 1."""
    start_fraction: float
    end_fraction: float
    """Where the part lies in the group or sequence."""
    lost: Lost
    expected_fraction: float | None
    """Dropped share in closed form; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDrops:
    """Drops of one routing group, routed and placed token by token a few times."""

    tokens: int
    """Tokens of a group as it was placed; fewer than it has where it is too large."""
    groups: int
    slots: int
    """Of an expert in it, or of a rank where its experts share them."""
    parts: tuple[DropPart, ...]


def token_drops(router: Router, shares: Shares, sequence_tokens: int, seed: int) -> TokenDrops:
    """Return who is dropped in a layer with these shares; without a capacity no parts."""
    found = queue(router, sequence_tokens)
    if found is None:
        return TokenDrops(tokens=router.group_tokens, groups=0, slots=0, parts=())
    generator = rng.stream(seed, "token drops")
    most = 2 * MOST_SCORES // (found.tokens * router.experts)
    groups = max(1, min(_MOST_GROUPS, most))
    placed = place(found, shares, groups, generator)
    return TokenDrops(
        tokens=found.tokens,
        groups=groups,
        slots=found.slots,
        parts=tuple(_parts(found, placed, likely_drops(found))),
    )


def _parts(queue: Queue, placed: list[Placed], likely: Likely | None) -> Iterator[DropPart]:
    real = ~queue.padding()
    by_token = None if likely is None else likely.by_token
    yield _part("all", (0, 1), lost(placed, real), _mean(by_token, real))
    yield from _along("position", queue.places(), (real, placed, by_token))
    if queue.sequences >= 2:
        yield from _along("sequence", queue.places_in_sequence(), (real, placed, by_token))
    by_choice = None if likely is None else likely.by_choice
    for choice in range(max(one.wanted.shape[1] for one in placed)):
        known = by_choice is not None and choice < by_choice.shape[1]
        column = by_choice[:, choice] if by_choice is not None and known else None
        here = lost(placed, real, choice)
        if here.wanted:
            yield _part("choice", (choice, 1), here, _mean(column, real), first=1)


def _along(
    by: str,
    places: NDArray[np.float64],
    of: tuple[NDArray[np.bool_], list[Placed], NDArray[np.float64] | None],
) -> Iterator[DropPart]:
    """Yield the parts along the group or sequence that have tokens; of: who, what, expected."""
    real, placed, by_token = of
    number = (places * BINS).astype(np.int64)
    for part in range(BINS):
        here = real & (number == part)
        if here.any():
            yield _part(by, (part, BINS), lost(placed, here), _mean(by_token, here))


def _part(
    by: str, at: tuple[int, int], here: Lost, expected: float | None, first: int = 0
) -> DropPart:
    """Return a part; at: its number, and how many share the group (choices have all of it)."""
    number, of = at
    start, end = (0.0, 1.0) if of == 1 else (number / of, (number + 1) / of)
    return DropPart(
        by=by,
        part=number + first,
        start_fraction=start,
        end_fraction=end,
        lost=here,
        expected_fraction=expected,
    )


def _mean(values: NDArray[np.float64] | None, where: NDArray[np.bool_]) -> float | None:
    return None if values is None else float(values[where].mean())
