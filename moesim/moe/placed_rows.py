"""Rows that slots and ranks compute under a placement: vectors for the grouped GEMM.

The rows of an expert are numbered through, source rank by source rank; row j goes to replica
j mod r of its r replicas. So replicas differ by one row at most, in total and per source.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.moe.loads import Counts
from moesim.moe.packing import number_among_equals
from moesim.moe.placement import Placement, replicas

_Number = TypeVar("_Number", bound=np.generic)


def slot_rows(counts: Counts, placement: Placement) -> Counts:
    """Return [..., ranks, slots per rank]: the rows of every slot; empty slots have none.

    counts [..., E] and the placement may each have leading dimensions, which broadcast. Replica i
    of r gets ceil((n - i) / r) of the n rows of its expert; their sum is n.
    """
    return _rows_below(counts, placement)


def rank_loads(counts: Counts, placement: Placement) -> Counts:
    """Return [..., ranks]: the rows that each rank computes."""
    return np.asarray(slot_rows(counts, placement).sum(axis=-1), dtype=np.int64)


def slot_rows_by_source(counts: Counts, placement: Placement) -> Counts:
    """Return [source rank, ranks, slots per rank] of counts[source rank, expert].

    Summed over sources these are the `slot_rows` of the summed counts.
    """
    upto = np.cumsum(counts, axis=0)
    return _rows_below(upto, placement) - _rows_below(upto - counts, placement)


def expected_rank_loads(loads: ArrayLike, placement: Placement) -> NDArray[np.float64]:
    """Return [..., ranks] of loads [..., E] that need not be whole, split evenly over replicas."""
    per_replica = np.asarray(loads, dtype=np.float64) / replicas(placement)
    slots = _gather(per_replica, placement)
    return np.asarray(slots.sum(axis=-1), dtype=np.float64)


def replica_numbers(placement: Placement) -> Counts:
    """Return [..., ranks, slots per rank]: 0 for the first slot that holds an expert, 1, ...

    0 also in empty slots.
    """
    slots = placement.expert_of_slot
    flat = slots.reshape(-1, slots.shape[-2] * slots.shape[-1])
    return np.where(slots < 0, 0, number_among_equals(flat).reshape(slots.shape))


def _rows_below(counts: Counts, placement: Placement) -> Counts:
    """Return how many of the first n rows of its expert each slot gets."""
    rows = _gather(counts, placement)
    copies = np.maximum(1, _gather(replicas(placement), placement))
    return np.asarray((rows - replica_numbers(placement) + copies - 1) // copies, dtype=np.int64)


def _gather(values: NDArray[_Number], placement: Placement) -> NDArray[_Number]:
    """Return values [..., E] by slot, [..., ranks, slots per rank]; 0 in empty slots."""
    slots = placement.expert_of_slot
    leading = np.broadcast_shapes(values.shape[:-1], slots.shape[:-2])
    flat = np.broadcast_to(slots, (*leading, *slots.shape[-2:])).reshape(*leading, -1)
    held = np.broadcast_to(values, (*leading, values.shape[-1]))
    gathered = np.take_along_axis(held, np.maximum(flat, 0), axis=-1)
    return np.where(flat < 0, 0, gathered).reshape(*leading, *slots.shape[-2:])
