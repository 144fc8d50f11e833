"""Law 1: tokens routed = computed + dropped; bytes sent = bytes received."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from moesim.model.layers import layer_operators
from moesim.model.operators import Exchange, GroupedGemm
from moesim.moe.assignment import Router, assign
from moesim.moe.capacity import FORMULAS, CapacityRule
from moesim.moe.dispatchers import DISPATCHERS, Rows
from moesim.moe.loads import SHARES, LoadLaw
from moesim.moe.traffic import Destinations
from moesim.spec.load import load_scenario
from moesim.study.outcome import Outcome
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate
from tests.laws.small_runs import SHIPPED, outcome, random_outcomes, resolved, without_curves

Matrix = NDArray[np.float64]


def _random_router(random: Random) -> Router:
    ranks = random.choice([1, 2, 4, 8])
    experts = ranks * random.choice([1, 2, 4])
    group = random.choice([16, 64, 256])
    capacity = None
    if random.random() < 0.7:
        capacity = CapacityRule(
            factor=random.choice([0.3, 1.0, 1.25, 4.0]), formula=random.choice(list(FORMULAS)),
            group_tokens=group, pad=random.random() < 0.5,
        )  # fmt: skip
    return Router(
        tokens=group * random.choice([1, 3, 8]), group_tokens=group, experts=experts,
        top_k=random.randint(1, experts), ranks=ranks, capacity=capacity,
        law=LoadLaw(law=random.choice(list(SHARES)), cv=random.choice([0.0, 0.3, 1.5])),
    )  # fmt: skip


def test_no_token_is_lost_by_a_random_router() -> None:
    random, generator = Random(1), np.random.default_rng(1)
    for _ in range(300):
        router = _random_router(random)
        load = assign(router, generator)
        assert load.routed == router.tokens * router.top_k
        assert load.routed == load.computed + load.dropped
        assert load.dropped >= 0
        assert len(load.fullest_rows) == router.experts // router.ranks
        padded = router.capacity is not None and router.capacity.pad
        if not padded:  # the rows that all ranks compute are the assignments that found a slot
            assert load.mean_rows * router.ranks == pytest.approx(load.computed, rel=1e-12)
        late = router.capacity is not None and router.capacity.formula == "megablocks"
        if not late:  # else what is sent is not yet what is kept and padded
            assert sum(load.fullest_rows) == pytest.approx(load.mean_rows * load.rank_imbalance)


def test_no_token_is_lost_where_routing_groups_do_not_divide_the_tokens() -> None:
    # 1000 tokens in groups of 300: three whole groups and one of 100
    router = Router(
        tokens=1000, group_tokens=300, experts=8, top_k=2, ranks=4, law=LoadLaw(),
        capacity=CapacityRule(factor=1.0, group_tokens=300),
    )  # fmt: skip
    load = assign(router, np.random.default_rng(0))
    assert load.routed == 2000
    assert load.routed == load.computed + load.dropped


def test_no_token_is_lost_in_whole_runs(tmp_path: Path) -> None:
    for run in random_outcomes(tmp_path, 25, seed=3):
        moe_layers = run.run.architecture.num_layers
        layout, spec = run.run.layout, run.run.scenario.training
        # tokens of an expert-parallel group: those of ep ranks, tp and cp sharing a sequence
        tokens = spec.micro_batch * spec.sequence_length // (layout.tp * layout.cp) * layout.ep
        ffn = run.run.architecture.decoder[0].layer.ffn
        for step in run.steps:
            assert step.routed == tokens * getattr(ffn, "top_k", 0) * moe_layers
            assert 0 <= step.dropped <= step.routed
        for load in run.loads.values():
            assert load.routed == load.computed + load.dropped


@dataclass(frozen=True)
class _Wire:
    """Copies from rank to rank, in the mean over all choices of experts."""

    near: Matrix
    away: Matrix


def _brute_force(dispatcher: str, where: Destinations) -> _Wire:
    """Send a token of each rank to each possible choice of experts, copy by copy."""
    ranks, members = where.ranks, where.ranks // where.domains
    wire = _Wire(np.zeros((ranks, ranks)), np.zeros((ranks, ranks)))
    choices = list(combinations(range(where.experts), where.top_k))
    for source in range(ranks):
        for chosen in choices:
            targets = [expert * ranks // where.experts for expert in chosen]
            for sender, receiver in _hops(dispatcher, source, targets, ranks, members):
                part = wire.near if sender // members == receiver // members else wire.away
                part[sender, receiver] += 1 / len(choices)
    return wire


def _hops(
    dispatcher: str, source: int, targets: list[int], ranks: int, members: int
) -> list[tuple[int, int]]:
    if dispatcher == "alltoall":  # one copy per choice, straight
        return [(source, rank) for rank in targets if rank != source]
    if dispatcher == "allgather":  # every token to every rank: once into each domain, then on
        hops = []
        for domain in range(ranks // members):
            entry = domain * members + source % members
            hops += [(source, entry)] if entry != source else []
            inside = range(domain * members, (domain + 1) * members)
            hops += [(entry, rank) for rank in inside if rank != entry]
        return hops
    hops = []  # deepep: once into each domain, to the rank in the sender's place, then on
    for domain in {rank // members for rank in targets}:
        entry = domain * members + source % members
        hops += [(source, entry)] if entry != source else []
        here = {rank for rank in targets if rank // members == domain}
        hops += [(entry, rank) for rank in here if rank != entry]
    return hops


PLACES = [  # experts, top_k, ranks, domains
    (8, 2, 8, 1), (8, 2, 8, 2), (8, 3, 4, 2), (8, 2, 4, 4), (12, 4, 6, 3), (12, 2, 6, 2),
    (10, 1, 10, 5), (6, 6, 3, 1), (8, 8, 4, 2), (16, 3, 8, 4), (4, 2, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("dispatcher", sorted(DISPATCHERS))
def test_bytes_of_a_dispatch_equal_those_of_a_matrix_filled_copy_by_copy(dispatcher: str) -> None:
    for experts, top_k, ranks, domains in PLACES:
        where = Destinations(experts=experts, top_k=top_k, ranks=ranks, domains=domains)
        wire = _brute_force(dispatcher, where)
        found = DISPATCHERS[dispatcher](where)
        per_rank = Rows(wire.near.sum() / ranks, wire.away.sum() / ranks)
        assert found.scale_up == pytest.approx(per_rank.scale_up, rel=1e-9, abs=1e-12), where
        assert found.scale_out == pytest.approx(per_rank.scale_out, rel=1e-9, abs=1e-12), where
        for part in (wire.near, wire.away):  # each rank receives what it sends
            assert part.sum(axis=0) == pytest.approx(part.sum(axis=1), abs=1e-9)


@pytest.mark.parametrize("name", [path.stem for path in SHIPPED])
def test_no_token_is_lost_in_shipped_scenarios(name: str) -> None:
    run = simulate(resolve(load_scenario(name)))
    for load in run.loads.values():
        assert load.routed == load.computed + load.dropped
    assert all(0 <= step.dropped <= step.routed for step in run.steps)


@pytest.mark.parametrize(
    "capacity",
    [
        pytest.param({}, id="a group is a rank"),
        pytest.param({"group_tokens": 512}, id="two groups on a rank"),
        pytest.param({"scope": "world"}, id="one group on all ranks"),
        pytest.param({"formula": "megablocks"}, id="padded after the exchange"),
    ],
)
def test_padded_slots_sent_are_padded_slots_computed(
    tmp_path: Path, capacity: dict[str, object]
) -> None:
    """All ranks of a group together send as many rows as their experts compute.

    MegaBlocks sends what is routed, two choices of each token, and pads afterwards.
    """
    rule = {"factor": 1.25, "pad": True, **capacity}
    made = outcome(tmp_path, {"routing": {"capacity": rule}})
    load, job = made.loads[0], made.run.job
    layer, hidden = made.run.architecture.decoder[0].layer, made.run.architecture.hidden
    found = layer_operators(
        layer, hidden, job.batch.decoder, job.shard,
        rows=load.fullest_rows, copies=load.copies,
    )  # fmt: skip
    sent = next(op for op in found if isinstance(op, Exchange))
    computed = next(op for op in found if isinstance(op, GroupedGemm))
    late = capacity.get("formula") == "megablocks"
    assert sent.copies * sent.tokens == (2048 if late else sum(computed.rows))
    # 1024 tokens with two choices on eight experts, 1.25 times the slots they fill
    assert sum(computed.rows) == 2560


def test_dropped_tokens_are_not_sent(tmp_path: Path) -> None:
    # half the slots: half of the even load finds none, and only the rest travels
    whole = simulate(without_curves(resolved(tmp_path)))
    capacity = {"routing": {"capacity": {"factor": 0.5}}}
    half = simulate(without_curves(resolved(tmp_path, capacity)))
    assert half.loads[0].dropped * 2 == half.loads[0].routed
    assert _dispatch_s(half) < 0.75 * _dispatch_s(whole)


def _dispatch_s(made: Outcome) -> float:
    return next(share.seconds for share in made.breakdown if share.name == "dispatch")
