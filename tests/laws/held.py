"""Micro-batches that a stage holds while it follows its schedule, counted by hand."""

from moesim.sim.training.schedules import Order, passes

_CHANGE = {"F": 1, "B": -1, "I": 0, "W": -1}
"""Micro-batches that a pass adds to those held: gradients of weights need what was kept."""


def most_in_flight(order: Order) -> dict[int, int]:
    """Return how many micro-batches of each chunk a stage holds when it holds the most in all.

    In a pair the backward pass frees layer by layer what the forward pass takes.
    """
    held: dict[int, int] = {}
    fullest: dict[int, int] = {}
    for action in (one for item in order for one in reversed(passes((item,)))):
        held[action.chunk] = held.get(action.chunk, 0) + _CHANGE[action.kind]
        if sum(held.values()) > sum(fullest.values()):
            fullest = dict(held)
    return fullest
