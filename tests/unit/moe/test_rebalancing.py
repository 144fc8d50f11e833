"""Moving weights between placements, and placements that have become stale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.moe.loads import LoadLaw, draw_shares
from moesim.moe.placed_rows import expected_rank_loads
from moesim.moe.placement import PLACEMENTS, Placement, Room, greedy, replicated
from moesim.moe.rebalancing import (
    Rebalancing,
    bytes_between_nodes,
    drifted,
    log_correlation_of,
    moves,
    rebalanced,
    received_bytes,
)
from moesim.moe.straggler import excess


def _placement(slots: list[list[int]], experts: int = 4) -> Placement:
    return Placement(expert_of_slot=np.array(slots), experts=experts)


def test_moves_by_hand() -> None:
    """Four ranks in two nodes; experts 0 and 3 change places, 1 and 2 stay.

    On rank 0 the slots are only swapped: it holds 3 in place of 0, from the other node.
    """
    old = _placement([[0, 1], [2, 1], [3, 2], [3, 1]])
    new = _placement([[1, 3], [2, 1], [0, 2], [3, 0]])
    change = moves(old, new, nodes=2)
    # rank 0 fetches 3 from rank 2 or 3, ranks 2 and 3 fetch 0 from rank 0, its only holder
    assert change.experts.sum(axis=0).tolist() == [1, 0, 1, 1]
    assert change.experts[0].tolist() == [0, 0, 1, 1]
    assert change.experts[2, 0] + change.experts[3, 0] == 1
    assert change.changed_slots == 4
    assert received_bytes(change, 10.0).tolist() == [10.0, 0.0, 10.0, 10.0]
    assert bytes_between_nodes(change, 10.0).tolist() == [[0.0, 20.0], [10.0, 0.0]]


def test_weights_come_from_the_own_node_where_it_has_them() -> None:
    old = _placement([[0, 1], [2, 3], [0, 1], [2, 3]])
    new = _placement([[0, 2], [1, 3], [0, 3], [1, 2]])
    change = moves(old, new, nodes=2)
    assert bytes_between_nodes(change, 1.0).sum() == 0
    assert change.experts.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]


def test_holders_take_turns() -> None:
    # expert 0 lies on ranks 0 to 3 and goes to ranks 4 to 7: each of the four sends it once
    old = _placement([[0], [0], [0], [0], [1], [1], [2], [3]])
    new = _placement([[1], [2], [3], [0], [0], [0], [0], [0]])
    change = moves(old, new)
    assert change.experts[:4, 4:].sum(axis=1).tolist() == [1, 1, 1, 1]


@given(seed=st.integers(0, 2**32), nodes=st.sampled_from([1, 2, 4]))
def test_bytes_sent_are_bytes_received(seed: int, nodes: int) -> None:
    generator = np.random.default_rng(seed)
    room = Room(ranks=8, slots_per_rank=3)
    old, new = (replicated(generator.lognormal(0, 1, (3, 16)), room) for _ in range(2))
    change = moves(old, new, nodes)
    assert 7.0 * change.experts.sum() == received_bytes(change, 7.0).sum()
    assert np.diag(change.experts).sum() == 0
    received = np.zeros(8, dtype=int)
    for before, after in zip(old.expert_of_slot, new.expert_of_slot, strict=True):
        for rank in range(8):
            received[rank] += len(set(after[rank].tolist()) - set(before[rank].tolist()))
    assert change.experts.sum(axis=0).tolist() == received.tolist()
    assert change.changed_slots >= change.experts.sum()
    assert bytes_between_nodes(change, 7.0).sum() <= 7.0 * change.experts.sum()


def test_nothing_moves_between_equal_placements() -> None:
    placement = replicated(np.arange(16.0), Room(ranks=4, slots_per_rank=5))
    change = moves(placement, placement)
    assert (change.changed_slots, int(change.experts.sum())) == (0, 0)


def test_groups_that_stay_in_their_nodes_cross_less_between_nodes() -> None:
    """DeepSeek-V3's 256 experts on four nodes, loads that correlate at 0.99.

    Packing ranks anew moves nearly every weight either way; packed by group, most stay in their
    node. Uniform moves would cross nodes three times in four.
    """
    generator, law = np.random.default_rng(6), LoadLaw(law="lognormal", cv=1.42)
    seen, fresh = (np.stack([draw_shares(law, 256, generator) for _ in range(20)]) for _ in "ab")
    now = drifted(seen, fresh, log_correlation_of(0.99, 1.42))
    room = Room(ranks=32, slots_per_rank=9, nodes=4, groups=8)
    away = {}
    for rule in ("replicated", "replicated_by_node"):
        change = moves(PLACEMENTS[rule](seen, room), PLACEMENTS[rule](now, room), nodes=4)
        assert change.experts.sum() > 0.75 * 20 * 288
        away[rule] = bytes_between_nodes(change, 1.0).sum() / (20 * 288)
    assert away["replicated"] == pytest.approx(0.75, abs=0.05)
    assert away["replicated_by_node"] < away["replicated"] / 2


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.96, 1.0])
def test_drifted_shares_correlate(correlation: float) -> None:
    """Pearson's correlation of shares; 200 layers, cv 0.5 so that few experts do not rule it."""
    generator, law = np.random.default_rng(3), LoadLaw(law="lognormal", cv=0.5)
    seen, fresh = (
        np.stack([draw_shares(law, 256, generator) for _ in range(200)]) for _ in range(2)
    )
    now = drifted(seen, fresh, log_correlation_of(correlation, 0.5))
    assert now.sum(axis=1) == pytest.approx(np.ones(200))
    found = [np.corrcoef(a, b)[0, 1] for a, b in zip(seen, now, strict=True)]
    assert float(np.mean(found)) == pytest.approx(correlation, abs=0.02)
    # the law stays what it was
    assert float((now.std(axis=1) * 256).mean()) == pytest.approx(0.5, rel=0.02)


def test_correlations_per_layer() -> None:
    generator = np.random.default_rng(4)
    seen, fresh = generator.dirichlet(np.ones(8), (2, 3))
    now = drifted(seen, fresh, np.array([1.0, 0.0, 0.5]))
    assert now[0] == pytest.approx(seen[0])
    assert now[1] == pytest.approx(fresh[1])


def test_a_stale_placement_is_worse() -> None:
    """The less the loads correlate, the less greedy placement helps; at 0 it is any placement."""
    generator, law = np.random.default_rng(5), LoadLaw(law="lognormal", cv=1.0)
    seen, fresh = (
        np.stack([draw_shares(law, 64, generator) for _ in range(200)]) for _ in range(2)
    )
    room = Room(ranks=8, slots_per_rank=8)
    placement = greedy(seen, room)
    found = []
    for correlation in (1.0, 0.98, 0.8, 0.4, 0.0):
        now = drifted(seen, fresh, log_correlation_of(correlation, 1.0))
        found.append(float(excess(expected_rank_loads(now, placement)).mean()))
    assert found == sorted(found)
    any_other = excess(expected_rank_loads(fresh, PLACEMENTS["contiguous"](fresh, room)))
    assert found[-1] == pytest.approx(float(any_other.mean()), rel=0.15)


def test_rebalancing_at_intervals_by_hand() -> None:
    """Two ranks of two slots; experts 0 and 1 are hot for ever, so they part at iteration 2."""
    counts = np.tile(np.array([6, 6, 1, 1]), (5, 1))
    room = Room(ranks=2, slots_per_rank=2)
    plan = Rebalancing(interval=2, window=1)
    history = rebalanced(counts, plan, PLACEMENTS["greedy"], room)
    assert history.starts == (0, 2, 4)
    # equal loads are dealt in turn: experts 0 and 2 on rank 0, so it is even already
    assert history.rank_rows.tolist() == [[7, 7]] * 5
    in_order = rebalanced(counts, plan, _in_order_unless_known, room)
    assert in_order.rank_rows.tolist() == [[12, 2]] * 2 + [[7, 7]] * 3


def test_layers_are_rebalanced_as_each_alone() -> None:
    counts = np.random.default_rng(1).integers(0, 50, (7, 3, 8))
    room, plan = Room(ranks=4, slots_per_rank=3), Rebalancing(interval=3, window=1)
    together = rebalanced(counts, plan, PLACEMENTS["replicated"], room)
    for layer in range(3):
        alone = rebalanced(counts[:, layer], plan, PLACEMENTS["replicated"], room)
        assert together.rank_rows[:, layer].tolist() == alone.rank_rows.tolist()


def _in_order_unless_known(loads: object, room: Room) -> Placement:
    known = len(set(np.asarray(loads).tolist())) > 1
    return PLACEMENTS["greedy" if known else "contiguous"](np.asarray(loads), room)


def test_a_window_and_a_delay_choose_what_is_seen() -> None:
    """Experts 0 and 1 are hot, from iteration 4 on 0 and 2; placed anew at iteration 6.

    Seen as before, greedy puts 0 and 2 together, which is [18, 2] afterwards; a window that has
    iterations 4 and 5 in it parts them.
    """
    first, then = np.array([9, 9, 1, 1]), np.array([9, 1, 9, 1])
    counts = np.stack([first] * 4 + [then] * 6)
    room = Room(ranks=2, slots_per_rank=2)
    cases = {(2, 0): [10, 10], (6, 0): [10, 10], (2, 1): [10, 10], (2, 2): [18, 2]}
    for (window, delay), expected in cases.items():
        plan = Rebalancing(interval=6, window=window, delay=delay)
        history = rebalanced(counts, plan, PLACEMENTS["greedy"], room)
        assert history.rank_rows[6:].tolist() == [expected] * 4, (window, delay)
        assert int(history.rank_rows.sum()) == int(counts.sum())
    # nothing to look back on yet: the placement stays
    late = rebalanced(
        counts, Rebalancing(interval=6, window=2, delay=6), PLACEMENTS["greedy"], room
    )
    assert late.starts == (0,)
