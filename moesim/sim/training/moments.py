"""What a stage holds while it follows its schedule: from passes to micro-batches in flight.

A forward pass takes the room of its micro-batch when it starts; a backward pass, or the gradients
of weights where they run apart, gives it back when it ends. In a pair the backward pass frees layer
by layer what the forward pass takes: first half and second half of it. The one layer in between is
not counted.
"""

from collections.abc import Iterator

from moesim.cost.activations import Moment
from moesim.sim.training.schedules import Action, Order, Pair

FREES = {"B", "W"}
"""Passes whose end gives back what was kept: gradients of weights need it."""


def moments(order: Order, chunks: int) -> list[tuple[Moment, ...]]:
    """Return for each item of `order` what the stage is at: one moment, or two for a pair."""
    held = [0] * chunks
    return [tuple(_during(item, held)) for item in order]


def _during(item: Action | Pair, held: list[int]) -> Iterator[Moment]:
    if isinstance(item, Pair):
        yield from _during(item.backward, held)
        yield from _during(item.forward, held)
        return
    if item.kind == "F":
        held[item.chunk] += 1
    yield Moment(tuple(held), () if item.kind == "W" else (item.chunk,))
    if item.kind in FREES:
        held[item.chunk] -= 1


def after(item: Action | Pair, last: Moment) -> Moment:
    """Return what a stage holds when `item` has ended, of which `last` was the last moment."""
    ended = item.forward if isinstance(item, Pair) else item
    held = list(last.held)
    held[ended.chunk] -= ended.kind in FREES
    return Moment(tuple(held))


def fullest_moments(order: Order, chunks: int) -> tuple[Moment, ...]:
    """Return the distinct moments of `order` among which the fullest is.

    Of one chunk it is the one with most micro-batches.
    """
    distinct = dict.fromkeys(one for during in moments(order, chunks) for one in during)
    if chunks > 1:
        return tuple(distinct)
    working = [one for one in distinct if one.at_work]
    return (max(working, key=lambda one: one.held),) if working else ()
