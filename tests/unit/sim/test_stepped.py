"""Taking times from each other gives what simpy gives, bit for bit."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from moesim.cost.times import Part, PassCost, StageCost
from moesim.sim.training.registry import ROUTES, SPLIT, stage_order
from moesim.sim.training.step import StepPlan, StepResult, simulate_step
from moesim.spec.load import is_serving, load_scenario
from moesim.study.resolve import Training, resolve
from moesim.study.simulate import plan, simulate, stage_orders
from tests.unit.sim.stepped import stepped

SHIPPED = [
    path.stem
    for path in sorted(Path("scenarios").glob("*.yaml"))
    if "campaign" not in path.stem and not is_serving(path)
]


def _same(found: StepResult, reference: StepResult) -> None:
    assert found.seconds == reference.seconds
    assert found.stages == reference.stages
    assert set(found.slices) == set(reference.slices)
    assert len(found.slices) == len(reference.slices)


def _costs(random: Random, chunks: int) -> StageCost:
    def some(least: float, most: float) -> tuple[PassCost, ...]:
        found = []
        for _ in range(chunks):
            seconds = random.uniform(least, most)
            found.append(PassCost((Part("compute", "work", seconds),), seconds, 2))
        return tuple(found)

    return StageCost(
        forward=some(0.1, 2), backward=some(0.1, 4), inputs=some(0.1, 2), weights=some(0.1, 2),
        joint=tuple(some(0.2, 5) for _ in range(chunks)),
        send_s=random.choice([0.0, random.uniform(0, 0.5)]),
        reduce_s=random.choice([0.0, random.uniform(0, 5)]),
        gather_s=random.choice([0.0, random.uniform(0, 5)]),
        update_s=random.uniform(0, 0.2),
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["gpipe", "1f1b", "interleaved", "zb_h1", "zb_h2", "zb_v", "dualpipe", "dualpipe_v"]
)
def test_random_steps(name: str) -> None:
    random = Random(name)
    for _ in range(40):
        stages = random.choice([2, 4, 6])
        chunks = {"interleaved": 3, "zb_v": 2, "dualpipe": 2, "dualpipe_v": 2}.get(name, 1)
        micro_batches = 2 * stages * random.randint(1, 3)
        pairs = name == "interleaved" and random.random() < 0.5
        costs = tuple(_costs(random, chunks) for _ in range(stages))
        if name not in SPLIT:
            costs = tuple(
                replace(one, embedding_s=0.3 * (n in (0, stages - 1)))
                for n, one in enumerate(costs)
            )
        step = StepPlan(
            orders=tuple(
                stage_order(name, s, stages, (micro_batches, chunks), pairs)
                for s in range(stages)
            ),
            stages=costs, overlap_reduce=random.random() < 0.5,
            overlap_gather=random.random() < 0.5, overlapped_rate=random.uniform(0.3, 1.0),
            route=ROUTES.get(name, "loop"), post_validation=random.random() < 0.5,
        )  # fmt: skip
        _same(simulate_step(step), stepped(step))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scenarios(name: str) -> None:
    run: Training = resolve(load_scenario(name))
    outcome = simulate(run)
    _same(outcome.first, stepped(plan(run, stage_orders(run), outcome.stages)))
