"""Placement rules: by hand, against plain loops, against EPLB's own example, on real loads."""

from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.moe.counts import draw_counts
from moesim.moe.loads import LoadLaw, draw_shares
from moesim.moe.placed_rows import expected_rank_loads, rank_loads
from moesim.moe.placement import (
    PLACEMENTS,
    Placement,
    Room,
    contiguous,
    greedy,
    replica_memory_fraction,
    replicas,
    replicated,
    replicated_by_node,
    round_robin,
)

LOGNORMAL = LoadLaw(law="lognormal", cv=float(np.sqrt(np.expm1(1.05**2))))


def _slots(placement: Placement) -> list[list[int]]:
    slots: list[list[int]] = placement.expert_of_slot.tolist()
    return slots


def test_experts_in_order_and_in_turn() -> None:
    room = Room(ranks=3, slots_per_rank=2)
    assert _slots(contiguous(np.ones(6), room)) == [[0, 1], [2, 3], [4, 5]]
    assert _slots(round_robin(np.ones(6), room)) == [[0, 3], [1, 4], [2, 5]]


def test_experts_that_do_not_divide_leave_slots_empty() -> None:
    room = Room(ranks=3, slots_per_rank=3)
    assert _slots(contiguous(np.ones(7), room)) == [[0, 1, 2], [3, 4, -1], [5, 6, -1]]
    assert _slots(round_robin(np.ones(7), room)) == [[0, 3, 6], [1, 4, -1], [2, 5, -1]]
    assert replica_memory_fraction(contiguous(np.ones(7), room)) == 0.0


def test_greedy_by_hand() -> None:
    # 9 to rank 0; 7 to rank 1; 6 to rank 1 (7 < 9); rank 1 is full, so 1 and no other goes to 0
    placement = greedy([1.0, 9.0, 6.0, 7.0], Room(ranks=2, slots_per_rank=2))
    assert _slots(placement) == [[1, 0], [3, 2]]
    assert expected_rank_loads([1.0, 9.0, 6.0, 7.0], placement).tolist() == [10.0, 13.0]


def test_replication_by_hand() -> None:
    """Loads 12, 4, 2 in four slots: expert 0 gets the spare one, 6 + 6 + 4 + 2 on two ranks.

    With two more slots: 12 / 2 = 6 is still the hottest, a third copy of 4; then experts 0 and 1
    both have 4 per copy and the first takes it: four copies of 3, and 4 and 2.
    """
    loads = [12.0, 4.0, 2.0]
    placement = replicated(loads, Room(ranks=2, slots_per_rank=2))
    assert replicas(placement).tolist() == [2, 1, 1]
    assert expected_rank_loads(loads, placement).tolist() == [10.0, 8.0]
    assert replicas(replicated(loads, Room(ranks=2, slots_per_rank=3))).tolist() == [4, 1, 1]


def test_the_example_of_eplb() -> None:
    """deepseek-ai/EPLB README, Interface and Example: two layers, 12 experts, 16 replicas."""
    weight = [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ]
    room = Room(ranks=8, slots_per_rank=2, nodes=2, groups=4)
    assert replicated_by_node(weight, room).expert_of_slot.reshape(2, 16).tolist() == [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]


def _packed(loads: list[float], bins: int, room: int) -> list[list[int]]:
    """Pack by the definition: the largest first onto the lightest bin that is not full."""
    held: list[list[int]] = [[] for _ in range(bins)]
    weight = [0.0] * bins
    for item in sorted(range(len(loads)), key=lambda item: -loads[item]):
        target = min((b for b in range(bins) if len(held[b]) < room), key=weight.__getitem__)
        held[target].append(item)
        weight[target] += loads[item]
    return held


def _balanced(loads: list[float], ranks: int, room: int) -> list[list[int]]:
    """Replicate the expert with the most load per copy until slots are used, then pack."""
    copies, count = list(range(len(loads))), [1] * len(loads)
    while len(copies) < ranks * room:
        per_copy = [load / n for load, n in zip(loads, count, strict=True)]
        hottest = per_copy.index(max(per_copy))
        copies.append(hottest)
        count[hottest] += 1
    packed = _packed([loads[e] / count[e] for e in copies], ranks, room)
    return [[copies[i] for i in held] for held in packed]


def _by_node(loads: list[float], room: Room) -> list[list[int]]:
    size = len(loads) // room.groups
    of_group = [sum(loads[g * size : (g + 1) * size]) for g in range(room.groups)]
    slots: list[list[int]] = []
    for groups in _packed(of_group, room.nodes, room.groups // room.nodes):
        experts = [g * size + i for g in groups for i in range(size)]
        local = _balanced(
            [loads[e] for e in experts], room.ranks // room.nodes, room.slots_per_rank
        )
        slots += [[experts[i] for i in held] for held in local]
    return slots


@pytest.mark.parametrize("slots_per_rank", [4, 5, 7])
def test_the_rules_against_plain_loops(slots_per_rank: int) -> None:
    room = Room(ranks=8, slots_per_rank=slots_per_rank, nodes=4, groups=8)
    loads = np.random.default_rng(slots_per_rank).lognormal(0, 1.2, (12, 32))
    found = {name: rule(loads, room).expert_of_slot for name, rule in PLACEMENTS.items()}
    for layer, each in enumerate(loads.tolist()):
        alone = {name: _slots(rule(each, room)) for name, rule in PLACEMENTS.items()}
        for name, slots in found.items():  # a layer among others is placed as it is alone
            assert slots[layer].tolist() == alone[name]
        filled = [[e for e in held if e >= 0] for held in alone["greedy"]]
        assert filled == _packed(each, 8, slots_per_rank)
        assert alone["replicated"] == _balanced(each, 8, slots_per_rank)
        assert alone["replicated_by_node"] == _by_node(each, room)


def test_groups_stay_in_one_node() -> None:
    room = Room(ranks=16, slots_per_rank=3, nodes=4, groups=8)
    loads = np.random.default_rng(3).lognormal(0, 1, 32)
    by_node = replicated_by_node(loads, room).expert_of_slot.reshape(4, -1)
    groups = [set((held // 4).tolist()) for held in by_node]
    assert all(len(held) == 2 for held in groups)
    assert set.union(*groups) == set(range(8))


def test_nodes_that_do_not_divide_the_groups_fall_back_to_all_ranks() -> None:
    loads = np.random.default_rng(4).lognormal(0, 1, 24)
    room = Room(ranks=6, slots_per_rank=5, nodes=3, groups=4)
    assert _slots(replicated_by_node(loads, room)) == _slots(replicated(loads, room))


@given(
    loads=st.lists(st.floats(0, 1e6), min_size=1, max_size=24),
    ranks=st.integers(1, 8), spare=st.integers(0, 4), rule=st.sampled_from(sorted(PLACEMENTS)),
)  # fmt: skip
def test_every_expert_has_a_slot(loads: list[float], ranks: int, spare: int, rule: str) -> None:
    room = Room(ranks=ranks, slots_per_rank=-(-len(loads) // ranks) + spare)
    placement = PLACEMENTS[rule](loads, room)
    count = replicas(placement)
    assert placement.expert_of_slot.shape == (ranks, room.slots_per_rank)
    assert count.min() >= 1
    if rule.startswith("replicated"):
        assert count.sum() == ranks * room.slots_per_rank
    else:
        assert count.tolist() == [1] * len(loads)
    total = expected_rank_loads(loads, placement).sum()
    assert total == pytest.approx(sum(loads))


@given(seed=st.integers(0, 2**32), rule=st.sampled_from(["greedy", "replicated"]))
def test_the_names_of_experts_do_not_matter(seed: int, rule: str) -> None:
    generator = np.random.default_rng(seed)
    loads, order = generator.lognormal(0, 1, 12), generator.permutation(12)
    room = Room(ranks=4, slots_per_rank=3 if rule == "greedy" else 4)
    direct, renamed = PLACEMENTS[rule](loads, room), PLACEMENTS[rule](loads[order], room)
    assert replicas(renamed).tolist() == replicas(direct)[order].tolist()
    found = np.sort(expected_rank_loads(loads[order], renamed))
    assert found == pytest.approx(np.sort(expected_rank_loads(loads, direct)))


def test_redundant_experts_of_deepseek_v3_in_serving() -> None:
    """Prefill: 32 ranks with nine routed experts each; decode: 144 with two.

    deepseek-ai/open-infra-index, 202502OpenSourceWeek, day 6 @56d86855: 32 redundant experts.
    """
    for ranks, slots_per_rank in ((32, 9), (144, 2)):
        placement = replicated(np.arange(256.0), Room(ranks=ranks, slots_per_rank=slots_per_rank))
        assert replicas(placement).sum() - 256 == 32
        assert replica_memory_fraction(placement) == 0.125


def test_too_little_room_is_said() -> None:
    with pytest.raises(ValueError, match="8 experts do not fit into 6 slots"):
        greedy(np.ones(8), Room(ranks=3, slots_per_rank=2))
    with pytest.raises(ValueError, match="not 2 equal nodes"):
        replicated_by_node(np.ones(8), Room(ranks=3, slots_per_rank=4, nodes=2, groups=2))
    with pytest.raises(ValueError, match="not 3 equal groups"):
        replicated(np.ones(8), Room(ranks=4, slots_per_rank=2, groups=3))
    with pytest.raises(ValueError, match="1 of 3 experts have no slot"):
        Placement(expert_of_slot=np.array([[0], [1]]), experts=3)


def _least_time(layers: int, experts: int, room: Room, rule: str) -> float:
    """Return the least of some processor times to draw shares and counts and to place them."""
    generator, times = np.random.default_rng(0), []
    for _ in range(5):
        start = process_time()
        shares = [draw_shares(LOGNORMAL, experts, generator) for _ in range(layers)]
        counts = np.stack([draw_counts(share, 4096, 8, generator) for share in shares])
        rows = rank_loads(counts, PLACEMENTS[rule](np.stack(shares), room))
        times.append(process_time() - start)
        assert rows.sum(axis=1).tolist() == [4096 * 8] * layers
    return min(times)


@pytest.mark.parametrize("rule", sorted(PLACEMENTS))
def test_61_layers_of_256_experts_are_drawn_and_placed_in_50_ms(rule: str) -> None:
    assert _least_time(61, 256, Room(ranks=64, slots_per_rank=4), rule) < 0.05
    with_replicas = Room(ranks=32, slots_per_rank=9, nodes=4, groups=8)
    assert _least_time(61, 256, with_replicas, rule) < 0.05
