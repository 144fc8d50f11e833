"""Pairs of passes: one more forward pass ahead, each pass once, the time by hand."""

from random import Random

import pytest

from moesim.cost.times import StageCost
from moesim.sim.training.joint import joined
from moesim.sim.training.schedules import SCHEDULES, passes
from moesim.sim.training.step import StepPlan, simulate_step
from tests.laws.held import most_in_flight
from tests.laws.test_clock import one_pass


def _step_s(name: str, shape: tuple[int, int, int], times: tuple[float, float, float]) -> float:
    stages, micro_batches, chunks = shape
    f, b, both = (one_pass(seconds) for seconds in times)
    cost = StageCost(
        forward=(f,) * chunks, backward=(b,) * chunks, joint=((both,) * chunks,) * chunks,
        send_s=0.0, reduce_s=0.0, gather_s=0.0, update_s=0.0,
    )  # fmt: skip
    orders = tuple(joined(name, s, stages, micro_batches, chunks) for s in range(stages))
    plan = StepPlan(
        orders=orders, stages=(cost,) * stages,
        overlap_reduce=False, overlap_gather=False, overlapped_rate=1.0,
    )  # fmt: skip
    return simulate_step(plan).seconds


def test_without_a_pipeline_by_hand() -> None:
    assert [str(one) for one in joined("1f1b", 0, 1, 3, 1)] == ["F0.0", "F1.0&B0.0", "F2.0&B1.0",
                                                                 "B2.0"]  # fmt: skip
    assert _step_s("1f1b", (1, 3, 1), (1, 2, 2.5)) == pytest.approx(1 + 2.5 + 2.5 + 2)
    # a layer of the second for each layer of the first that is done
    assert most_in_flight(joined("1f1b", 0, 1, 8, 1)) == {0: 1}


def test_interleaved_runs_each_pass_once_and_never_faster_than_its_pairs() -> None:
    random = Random(9)
    for _ in range(100):
        p, v = random.randint(2, 6), random.randint(2, 4)
        m = p * random.randint(1, 5)
        f, b = random.uniform(0.1, 3), random.uniform(0.1, 3)
        both = random.uniform(max(f, b), f + b)
        for stage in range(p):
            order = passes(joined("interleaved", stage, p, m, v))
            plain = passes(SCHEDULES["interleaved"](stage, p, m, v))
            assert sorted(map(str, order)) == sorted(map(str, plain))
            held = sum(most_in_flight(joined("interleaved", stage, p, m, v)).values())
            before = sum(most_in_flight(SCHEDULES["interleaved"](stage, p, m, v)).values())
            assert held == before
        assert _step_s("interleaved", (p, m, v), (f, b, both)) >= m * v * both - 1e-9


def test_pairs_of_an_interleaved_pipeline_run_without_gaps() -> None:
    """A steady state of one pair after the other: 8 pairs more take 8 times as long as one."""
    few = _step_s("interleaved", (4, 16, 2), (1, 2, 2.5))
    many = _step_s("interleaved", (4, 20, 2), (1, 2, 2.5))
    assert many - few == pytest.approx(4 * 2 * 2.5)
