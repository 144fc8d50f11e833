"""Law 10: endless capacity drops nothing, ep = 1 sends nothing, endless bandwidth costs nothing."""

import math
from pathlib import Path
from random import Random

import numpy as np
import pytest

from moesim.moe.assignment import Router, assign
from moesim.moe.capacity import FORMULAS, CapacityRule
from moesim.moe.dispatchers import DISPATCHERS, Rows
from moesim.moe.loads import SHARES, LoadLaw
from moesim.moe.traffic import Destinations
from moesim.study.simulate import simulate
from tests.laws.small_runs import (
    outcome,
    random_outcomes,
    resolved,
    with_network,
    without_curves,
    without_latency,
)

EXCHANGES = {"dispatch", "combine"}


@pytest.mark.parametrize("formula", sorted(FORMULAS))
@pytest.mark.parametrize("law", sorted(SHARES))
def test_endless_capacity_drops_nothing(formula: str, law: str) -> None:
    generator = np.random.default_rng(2)
    for experts, top_k in ((8, 1), (8, 2), (64, 6)):
        router = Router(
            tokens=4096, group_tokens=512, experts=experts, top_k=top_k, ranks=4,
            law=LoadLaw(law=law, cv=1.0),
            capacity=CapacityRule(factor=1e6, formula=formula, group_tokens=512),
        )  # fmt: skip
        load = assign(router, generator)
        assert load.dropped == 0
        assert load.computed == load.routed == 4096 * top_k


def test_more_capacity_never_drops_more() -> None:
    random = Random(4)
    for _ in range(30):
        law = LoadLaw(law=random.choice(list(SHARES)), cv=random.uniform(0.1, 2))
        formula, seed = random.choice(list(FORMULAS)), random.randrange(10**6)
        dropped = []
        for factor in (0.25, 0.5, 1.0, 1.25, 2.0, 64.0):
            router = Router(
                tokens=1024, group_tokens=256, experts=16, top_k=2, ranks=4, law=law,
                capacity=CapacityRule(factor=factor, formula=formula),
            )  # fmt: skip
            dropped.append(assign(router, np.random.default_rng(seed)).dropped)
        assert dropped == sorted(dropped, reverse=True)
        assert dropped[-1] == 0


@pytest.mark.parametrize("dispatcher", sorted(DISPATCHERS))
def test_one_rank_sends_nothing(tmp_path: Path, dispatcher: str) -> None:
    rows = DISPATCHERS[dispatcher](Destinations(experts=8, top_k=2, ranks=1, domains=1))
    assert rows == Rows(0.0, 0.0)
    made = outcome(tmp_path, {"parallel": {"ep": 1, "dispatcher": dispatcher}})
    assert not {share.name for share in made.breakdown} & EXCHANGES


@pytest.mark.parametrize("dispatcher", sorted(DISPATCHERS))
def test_one_domain_sends_nothing_over_scale_out(dispatcher: str) -> None:
    for ranks in (2, 4, 8):
        where = Destinations(experts=8, top_k=2, ranks=ranks, domains=1)
        assert DISPATCHERS[dispatcher](where).scale_out == 0
        assert DISPATCHERS[dispatcher](where).scale_up > 0


def test_endless_bandwidth_leaves_compute_and_bubble(tmp_path: Path) -> None:
    for made in random_outcomes(tmp_path, 20, seed=10):
        faster = with_network(without_curves(made.run), up=math.inf, out=math.inf)
        run = without_latency(faster)
        free = simulate(run)
        assert not [share for share in free.breakdown if share.kind == "exposed"]
        compute_s = sum(share.seconds for share in free.breakdown if share.kind == "compute")
        idle_s = sum(share.seconds for share in free.breakdown if share.kind == "idle")
        assert compute_s + idle_s == pytest.approx(free.steps[0].seconds, rel=1e-9)
        if run.layout.pp == 1:
            cost = free.stages[0]
            passes_s = cost.forward[0].seconds + cost.backward[0].seconds
            expected_s = run.micro_batches * passes_s + cost.update_s
            assert free.steps[0].seconds == pytest.approx(expected_s, rel=1e-9)


def test_one_device_only_computes(tmp_path: Path) -> None:
    changes = {"cluster": {"devices": 1}, "parallel": {"ep": 1}, "training": {"global_batch": 4}}
    made = simulate(resolved(tmp_path, changes))
    assert {share.kind for share in made.breakdown} == {"compute"}
    assert made.metrics.exposed_fraction == 0.0
    assert made.metrics.bubble_fraction == 0.0


def test_one_stage_has_no_bubble(tmp_path: Path) -> None:
    assert outcome(tmp_path).metrics.bubble_fraction == 0.0
