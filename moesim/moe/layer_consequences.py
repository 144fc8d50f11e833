"""What the routing of one layer does, gathered for reports: loads, imbalance, drops, waste."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    replica_memory_fraction: float
    """Expert bytes that redundancy adds."""


def layer_consequences(
    counts: Counts,
    placement: Placement,
    *,
    kept: Counts | None = None,
    slots_offered: int | None = None,
) -> LayerConsequences:
    """Return what routed counts [..., E], groups or sources in front, do in one layer.

    `kept` are the counts that found a slot, of the same shape; None: all of them. `slots_offered`
    are the slots of all experts and groups together; None: there is no capacity. A padded expert
    computes its empty slots as well; those are the waste, not in the rows here.
    """
    routed = counts.reshape(-1, placement.experts).sum(axis=0)
    stayed = routed if kept is None else kept.reshape(-1, placement.experts).sum(axis=0)
    total, computed = int(routed.sum()), int(stayed.sum())
    by_slot = slot_rows(stayed, placement)
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
        capacity_waste_fraction=1 - computed / slots_offered if slots_offered else 0.0,
        replica_memory_fraction=replica_memory_fraction(placement),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """The same routing with and without redundant experts."""

    without: LayerConsequences
    with_replicas: LayerConsequences


def compare(
    counts: Counts,
    placement: Placement,
    *,
    kept: Counts | None = None,
    slots_offered: int | None = None,
) -> Replication:
    """Return the consequences under a placement, and under the contiguous one of as many ranks."""
    ranks = placement.expert_of_slot.shape[0]
    room = Room(ranks=ranks, slots_per_rank=-(-placement.experts // ranks))
    plain = contiguous(np.ones(placement.experts), room)
    without, with_replicas = (
        layer_consequences(counts, where, kept=kept, slots_offered=slots_offered)
        for where in (plain, placement)
    )
    return Replication(without=without, with_replicas=with_replicas)


def dropped_by_position(dropped: NDArray[np.bool_], sequence_tokens: int) -> NDArray[np.float64]:
    """Return [sequence_tokens]: the dropped share of choices at each position of a sequence.

    `dropped` [tokens, k] holds whole sequences, one after the other. First come, first served
    drops late positions more: Xue et al., OpenMoE, figure 12.
    """
    by_sequence = dropped.reshape(-1, sequence_tokens, dropped.shape[1])
    return np.asarray(by_sequence.mean(axis=(0, 2)), dtype=np.float64)
