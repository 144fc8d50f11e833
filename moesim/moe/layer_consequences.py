"""What the routing of one layer does, gathered for reports: loads, imbalance, drops, waste."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.moe.capacity import CapacityRule
from moesim.moe.habits import HABITS
from moesim.moe.kept_rows import computed_rows, is_padded, sent_rows
from moesim.moe.loads import Counts, imbalance
from moesim.moe.placed_rows import slot_rows
from moesim.moe.placement import Placement, Room, contiguous, replica_memory_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerConsequences:
    """One layer under one placement. routed = computed + dropped, exactly."""

    expert_rows: NDArray[np.int64]
    """[E] rows that each expert computes, over all its replicas."""
    slot_rows: NDArray[np.int64]
    """[ranks, slots per rank] rows of each local expert: the vector of a grouped GEMM."""
    rank_rows: NDArray[np.int64]
    """[ranks]"""
    expert_imbalance: float
    """Fullest over mean, as the router chose, before any drop."""
    slot_imbalance: float
    """Over the filled slots: what replication leaves of the hottest expert."""
    rank_imbalance: float
    routed: int
    computed: int
    dropped: int
    drop_fraction: float
    capacity_waste_fraction: float
    """Slots of the capacity that stay empty, of all; 0 where there is no capacity."""
    padded_rows: int
    """Rows through the experts that hold no token: empty slots, or the rest of a block."""
    padded_fraction: float
    """Of all rows through the experts."""
    sent_rows: int
    """Rows of the hidden width in one direction of the exchange, own rank included."""
    replica_memory_fraction: float
    """Expert bytes that redundancy adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """How an implementation treats the rows of one layer."""

    kept: Counts | None = None
    """Counts that found a slot, of the shape of the routed ones; None: all of them."""
    slots: int = 0
    """Slots of an expert over all routing groups; 0 where there is no capacity."""
    rule: CapacityRule | None = None
    block_rows: int = 1
    """Rows of an expert are rounded up to a multiple of this where its buffer is not padded."""


EVERYTHING = Handling()
"""All rows are kept, none is added."""


def layer_consequences(
    counts: Counts, placement: Placement, handling: Handling = EVERYTHING
) -> LayerConsequences:
    """Return what routed counts [..., E], groups or sources in front, do in one layer.

    Rows by expert, slot and rank are those that hold a token; what else an expert computes, its
    empty slots or the rest of a block, is in padded_rows. routed = computed + dropped.
    """
    kept, rule = handling.kept, handling.rule
    routed = counts.reshape(-1, placement.experts).sum(axis=0)
    stayed = routed if kept is None else kept.reshape(-1, placement.experts).sum(axis=0)
    total, computed = int(routed.sum()), int(stayed.sum())
    by_slot = slot_rows(stayed, placement)
    padded = _padded(stayed, by_slot, handling)
    offered = handling.slots * _sharers(placement, rule)
    by_rank = np.asarray(by_slot.sum(axis=1), dtype=np.int64)
    return LayerConsequences(
        expert_rows=stayed,
        slot_rows=by_slot,
        rank_rows=by_rank,
        expert_imbalance=imbalance(routed),
        slot_imbalance=imbalance(by_slot[placement.expert_of_slot >= 0]),
        rank_imbalance=imbalance(by_rank),
        routed=total,
        computed=computed,
        dropped=total - computed,
        drop_fraction=(total - computed) / total if total else 0.0,
        capacity_waste_fraction=1 - computed / offered if offered else 0.0,
        padded_rows=padded,
        padded_fraction=padded / (computed + padded) if computed + padded else 0.0,
        sent_rows=int(sent_rows(rule, routed, stayed, handling.slots).sum()),
        replica_memory_fraction=replica_memory_fraction(placement),
    )


def _padded(kept: Counts, by_slot: Counts, handling: Handling) -> int:
    """Return the rows beside the kept ones: of experts where slots are padded, else of blocks."""
    whole = kept if is_padded(handling.rule) else by_slot
    rows = computed_rows(handling.rule, whole, handling.slots, handling.block_rows)
    return int((rows - whole).sum())


def _sharers(placement: Placement, rule: CapacityRule | None) -> int:
    """Return how many have slots of their own: experts, or the ranks of a device budget."""
    by_device = rule is not None and HABITS[rule.formula].per_device
    return placement.expert_of_slot.shape[0] if by_device else placement.experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """The same routing with and without redundant experts."""

    without: LayerConsequences
    with_replicas: LayerConsequences


def compare(counts: Counts, placement: Placement, handling: Handling = EVERYTHING) -> Replication:
    """Return the consequences under a placement, and under the contiguous one of as many ranks."""
    ranks = placement.expert_of_slot.shape[0]
    room = Room(ranks=ranks, slots_per_rank=-(-placement.experts // ranks))
    plain = contiguous(np.ones(placement.experts), room)
    without, with_replicas = (
        layer_consequences(counts, where, handling) for where in (plain, placement)
    )
    return Replication(without=without, with_replicas=with_replicas)
