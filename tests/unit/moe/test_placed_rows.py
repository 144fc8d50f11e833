"""Rows by slot and rank: by hand, dealt row by row, conserved."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moesim.moe.placed_rows import (
    expected_rank_loads,
    rank_loads,
    replica_numbers,
    slot_rows,
    slot_rows_by_source,
)
from moesim.moe.placement import Placement, Room, contiguous, replicated

# expert 0 three times, 1 once, 2 twice; a slot stays empty
SLOTS = [[0, 1], [0, 2], [2, 0], [-1, 3]]


def _placement() -> Placement:
    return Placement(expert_of_slot=np.array(SLOTS), experts=4)


def test_rows_by_hand() -> None:
    # 10 rows over three replicas: 4, 3, 3; five over two: 3, 2
    counts = np.array([10, 7, 5, 1])
    assert slot_rows(counts, _placement()).tolist() == [[4, 7], [3, 3], [2, 3], [0, 1]]
    assert rank_loads(counts, _placement()).tolist() == [11, 6, 5, 1]
    assert replica_numbers(_placement()).tolist() == [[0, 0], [1, 0], [1, 2], [0, 0]]


def test_expected_rows_by_hand() -> None:
    loads = expected_rank_loads([10.0, 7.0, 5.0, 1.0], _placement())
    third = 10 / 3
    assert np.allclose(loads, [third + 7, third + 2.5, third + 2.5, 1])


def test_empty_slots_have_no_rows() -> None:
    counts = np.array([10, 7, 5])
    rows = slot_rows(counts, contiguous(counts, Room(ranks=2, slots_per_rank=4)))
    assert rows.tolist() == [[10, 7, 0, 0], [5, 0, 0, 0]]


def test_leading_dimensions() -> None:
    """Two layers of counts under one placement; and each layer under its own."""
    counts = np.array([[10, 7, 5, 1], [0, 1, 2, 3]])
    both = rank_loads(counts, _placement())
    assert both.tolist() == [[11, 6, 5, 1], [1, 1, 1, 3]]
    room = Room(ranks=2, slots_per_rank=3)
    each = replicated(counts, room)
    for layer in range(2):
        alone = replicated(counts[layer], room)
        assert np.array_equal(slot_rows(counts, each)[layer], slot_rows(counts[layer], alone))


@given(seed=st.integers(0, 2**32))
def test_rows_are_dealt_in_turn_source_by_source(seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 6, (3, 4))
    dealt = np.zeros((3, 4, 2), dtype=np.int64)
    places = {e: [(r, s) for r in range(4) for s in range(2) if SLOTS[r][s] == e] for e in range(4)}
    turn = dict.fromkeys(range(4), 0)
    for source in range(3):
        for expert in range(4):
            for _ in range(counts[source, expert]):
                rank, slot = places[expert][turn[expert] % len(places[expert])]
                dealt[source, rank, slot] += 1
                turn[expert] += 1
    found = slot_rows_by_source(counts, _placement())
    assert found.tolist() == dealt.tolist()
    total = slot_rows(counts.sum(axis=0), _placement())
    assert found.sum(axis=0).tolist() == total.tolist()


@given(
    counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=20),
    ranks=st.integers(1, 6), spare=st.integers(0, 3),
)  # fmt: skip
def test_no_row_is_lost(counts: list[int], ranks: int, spare: int) -> None:
    room = Room(ranks=ranks, slots_per_rank=-(-len(counts) // ranks) + spare)
    rows = slot_rows(np.array(counts), replicated(np.array(counts) + 1.0, room))
    assert int(rows.sum()) == sum(counts)
    slots = replicated(np.array(counts) + 1.0, room).expert_of_slot
    for expert, count in enumerate(counts):
        mine = rows[slots == expert]
        assert int(mine.sum()) == count
        assert int(mine.max() - mine.min()) <= 1


def test_without_replicas_rows_are_the_counts() -> None:
    counts = np.arange(12)
    rows = slot_rows(counts, contiguous(counts, Room(ranks=3, slots_per_rank=4)))
    assert rows.tolist() == counts.reshape(3, 4).tolist()
