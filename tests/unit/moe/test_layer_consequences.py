"""Stragglers, and what one layer's routing does, by hand and conserved."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.moe.capacity import CapacityRule
from moesim.moe.layer_consequences import Handling, compare, layer_consequences
from moesim.moe.placement import Room, contiguous, replicated
from moesim.moe.straggler import excess, straggler


def test_stragglers_by_hand() -> None:
    """Rank 0 is slow in the first layer, rank 2 in the second: waiting twice costs 4 + 5."""
    found = straggler(np.array([[4.0, 1.0, 1.0], [1.0, 3.0, 5.0]]))
    assert found.slowest.tolist() == [0, 2]
    assert found.maxima.tolist() == [4.0, 5.0]
    assert found.means.tolist() == [2.0, 3.0]
    assert found.sum_of_maxima == 9.0
    assert found.maximum_of_sums == 6.0


def test_excess_by_hand() -> None:
    # the definition of TensorRT-LLM's table: (max - mean) / mean
    assert excess(np.array([[4, 1, 1], [2, 2, 2], [0, 0, 0]])).tolist() == [1.0, 0.0, 0.0]


@given(seed=st.integers(0, 2**32))
def test_waiting_in_each_layer_is_never_faster(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.random((int(generator.integers(1, 6)), int(generator.integers(1, 9))))
    found = straggler(values)
    assert found.sum_of_maxima >= found.maximum_of_sums - 1e-12
    assert found.maximum_of_sums >= found.means.sum() - 1e-12
    order = generator.permutation(values.shape[1])
    assert straggler(values[:, order]).sum_of_maxima == pytest.approx(found.sum_of_maxima)


def test_consequences_by_hand() -> None:
    """Two groups, four experts on two ranks, six slots: 3 and 2 of 20 rows are dropped."""
    counts = np.array([[9, 1, 0, 0], [2, 8, 0, 0]])
    placement = contiguous(np.ones(4), Room(ranks=2, slots_per_rank=2))
    handling = Handling(kept=np.minimum(counts, 6), slots=2 * 6)
    found = layer_consequences(counts, placement, handling)
    assert found.expert_rows.tolist() == [8, 7, 0, 0]
    assert found.slot_rows.tolist() == [[8, 7], [0, 0]]
    assert found.rank_rows.tolist() == [15, 0]
    assert (found.routed, found.computed, found.dropped) == (20, 15, 5)
    assert found.drop_fraction == 0.25
    assert found.capacity_waste_fraction == pytest.approx(1 - 15 / 48)
    assert found.expert_imbalance == 11 / 5  # as routed: 11, 9, 0, 0
    assert (found.slot_imbalance, found.rank_imbalance) == (8 / 3.75, 2.0)
    assert found.replica_memory_fraction == 0.0
    unlimited = layer_consequences(counts, placement)
    assert (unlimited.dropped, unlimited.capacity_waste_fraction) == (0, 0.0)


def test_rows_computed_for_nothing_by_hand() -> None:
    """Four experts on two ranks, 20 rows wanted, 15 kept."""
    counts = np.array([[9, 1, 0, 0], [2, 8, 0, 0]])
    kept, placement = np.minimum(counts, 6), contiguous(np.ones(4), Room(ranks=2, slots_per_rank=2))
    # Switch pads to twelve slots of four experts and sends as many rows: 48, of which 15 are kept
    switch = Handling(kept=kept, slots=12, rule=CapacityRule(formula="switch"))
    padded = layer_consequences(counts, placement, switch)
    assert (padded.padded_rows, padded.sent_rows) == (33, 48)
    assert padded.padded_fraction == pytest.approx(33 / 48)
    # MegaBlocks without a capacity, blocks of eight: 11 and 9 rows become 16 and 16
    blocks = layer_consequences(counts, placement, Handling(block_rows=8))
    assert (blocks.padded_rows, blocks.sent_rows) == (12, 20)
    # three copies of expert 0
    spread = replicated(np.array([12, 4, 4, 0]), Room(ranks=2, slots_per_rank=3))
    copies = layer_consequences(np.array([12, 4, 4, 0]), spread, Handling(block_rows=8))
    # 4 4 4 of expert 0, 4 of 1 and of 2: five slots with four rows each, padded to eight
    assert copies.padded_rows == 5 * 4


def test_slots_of_a_rank_are_counted_by_rank() -> None:
    # a budget of ten rows for each of two ranks: 20 are offered, 16 are used
    placement = contiguous(np.ones(4), Room(ranks=2, slots_per_rank=2))
    handling = Handling(
        kept=np.array([7, 3, 4, 2]), slots=10, rule=CapacityRule(formula="deepseek_v2")
    )
    found = layer_consequences(np.array([9, 4, 4, 2]), placement, handling)
    assert found.capacity_waste_fraction == pytest.approx(0.2)
    assert (found.padded_rows, found.sent_rows) == (0, 16)


def test_replication_by_hand() -> None:
    """Loads 12, 4, 4, 0 on two ranks: 16 and 4; with two spare slots two more copies of 0."""
    counts = np.array([12, 4, 4, 0])
    placement = replicated(counts, Room(ranks=2, slots_per_rank=3))
    found = compare(counts, placement)
    assert found.without.rank_rows.tolist() == [16, 4]
    assert found.with_replicas.expert_rows.tolist() == [12, 4, 4, 0]
    assert sorted(found.with_replicas.slot_rows.ravel().tolist()) == [0, 4, 4, 4, 4, 4]
    assert sorted(found.with_replicas.rank_rows.tolist()) == [8, 12]
    assert found.with_replicas.replica_memory_fraction == 0.5
    assert found.without.expert_imbalance == found.with_replicas.expert_imbalance == 12 / 5


@given(seed=st.integers(0, 2**32))
def test_routed_is_computed_and_dropped(seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 50, (3, 12))
    room = Room(ranks=4, slots_per_rank=4)
    placement = replicated(counts.sum(axis=0), room)
    capacity = int(generator.integers(1, 60))
    handling = Handling(kept=np.minimum(counts, capacity), slots=3 * capacity)
    found = layer_consequences(counts, placement, handling)
    assert found.routed == found.computed + found.dropped == int(counts.sum())
    assert int(found.rank_rows.sum()) == int(found.slot_rows.sum()) == found.computed
    assert 0 <= found.drop_fraction <= 1
    assert 0 <= found.capacity_waste_fraction <= 1
    if capacity >= 50:
        assert found.dropped == 0
