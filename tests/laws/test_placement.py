"""Laws 1, 8, 10 of placed experts: no row is lost, one expert or all are dense, ep 1 is silent."""

from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from moesim.moe.byte_matrices import IMPLEMENTATIONS, combine, on_wire, padded, routed
from moesim.moe.choices import Choices
from moesim.moe.counts import draw_counts
from moesim.moe.layer_consequences import Handling, layer_consequences
from moesim.moe.loads import SHARES, LoadLaw, draw_shares
from moesim.moe.placed_rows import rank_loads
from moesim.moe.placement import PLACEMENTS, Room


def _choices(experts: NDArray[np.int64]) -> Choices:
    return Choices(experts, np.ones(experts.shape))


@pytest.mark.parametrize("rule", sorted(PLACEMENTS))
def test_ranks_compute_what_is_routed(rule: str) -> None:
    random, generator = Random(1), np.random.default_rng(1)
    for _ in range(60):
        nodes = random.choice([1, 2, 4])
        ranks = nodes * random.choice([1, 2, 4])
        experts = ranks * random.choice([1, 2, 3])
        groups = random.choice([1, nodes])
        room = Room(
            ranks=ranks, slots_per_rank=experts // ranks + random.randint(0, 2),
            nodes=nodes, groups=groups,
        )  # fmt: skip
        law = LoadLaw(law=random.choice(list(SHARES)), cv=random.choice([0.0, 0.3, 1.5]))
        shares = draw_shares(law, experts, generator)
        tokens, top_k = random.choice([1, 64, 1000]), random.randint(1, experts)
        counts = draw_counts(shares, tokens, top_k, generator)
        rows = rank_loads(counts, PLACEMENTS[rule](shares, room))
        assert int(rows.sum()) == tokens * top_k


@pytest.mark.parametrize("implementation", sorted(IMPLEMENTATIONS))
def test_bytes_sent_are_bytes_received(implementation: str) -> None:
    """Each way: what combine receives is what dispatch sent, rank by rank."""
    generator = np.random.default_rng(2)
    for _ in range(40):
        nodes, members, experts = generator.integers(1, 5, 3) * [1, 1, 4]
        room = Room(ranks=int(nodes * members), slots_per_rank=int(experts) + 1)
        placement = PLACEMENTS["replicated"](generator.random(experts), room)
        scores = generator.random((37, experts))
        chosen = np.argsort(scores, axis=1)[:, :3].astype(np.int64)
        source = generator.integers(0, room.ranks, 37)
        batch = routed(_choices(chosen), source, placement, nodes=int(nodes))
        there = IMPLEMENTATIONS[implementation](batch)
        back = combine(there)
        for out, home in ((there.between, back.between), (there.inside, back.inside)):
            assert on_wire(out).sum(axis=0).tolist() == on_wire(home).sum(axis=1).tolist()
            assert on_wire(out).sum(axis=1).tolist() == on_wire(home).sum(axis=0).tolist()


def test_one_expert_and_all_experts_are_dense() -> None:
    """One expert, top-1, computes every token once; E experts with k = E compute it E times."""
    generator = np.random.default_rng(3)
    law = LoadLaw(law="lognormal", cv=1.0)
    for experts in (1, 8):
        shares = draw_shares(law, experts, generator)
        counts = draw_counts(shares, 500, experts, generator)
        for rule in PLACEMENTS.values():
            placement = rule(shares, Room(ranks=1, slots_per_rank=experts))
            found = layer_consequences(counts, placement)
            assert sorted(found.slot_rows.ravel().tolist()) == [500] * experts
            assert found.rank_imbalance == found.expert_imbalance == 1.0


def test_ep_1_sends_nothing() -> None:
    generator = np.random.default_rng(4)
    for rule in PLACEMENTS.values():
        placement = rule(generator.random(8), Room(ranks=1, slots_per_rank=9))
        chosen = np.argsort(generator.random((50, 8)), axis=1)[:, :2].astype(np.int64)
        batch = routed(_choices(chosen), np.zeros(50, dtype=np.int64), placement)
        for hops in (*(send(batch) for send in IMPLEMENTATIONS.values()), padded(9, placement)):
            assert int(on_wire(hops.between).sum() + on_wire(hops.inside).sum()) == 0


def test_no_capacity_limit_drops_nothing() -> None:
    generator = np.random.default_rng(5)
    counts = generator.integers(0, 1000, (4, 16))
    placement = PLACEMENTS["greedy"](counts.sum(axis=0), Room(ranks=4, slots_per_rank=4))
    for kept in (None, np.minimum(counts, 1000), np.minimum(counts, 10**12)):
        assert layer_consequences(counts, placement, Handling(kept=kept)).dropped == 0
