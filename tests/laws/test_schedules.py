"""Law 13: pipeline schedules equal their closed forms when transfers cost nothing."""

from dataclasses import replace
from random import Random

import pytest

from moesim.cost.times import StageCost
from moesim.sim.training.schedules import SCHEDULES, Action, Order, passes
from moesim.sim.training.step import StepPlan, simulate_step
from tests.laws.held import most_in_flight
from tests.laws.test_clock import one_pass, random_plan


def _plan(name: str, stages: int, micro_batches: int, chunks: int, times: tuple[float, float]) -> (
    StepPlan
):  # fmt: skip
    cost = StageCost(
        forward=(one_pass(times[0] / chunks),) * chunks,
        backward=(one_pass(times[1] / chunks),) * chunks,
        send_s=0.0, reduce_s=0.0, gather_s=0.0, update_s=0.0,
    )  # fmt: skip
    return StepPlan(
        orders=tuple(SCHEDULES[name](s, stages, micro_batches, chunks) for s in range(stages)),
        stages=(cost,) * stages,
        overlap_reduce=False, overlap_gather=False, overlapped_rate=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "interleaved"])
def test_500_shapes_take_the_time_of_the_closed_form(name: str) -> None:
    """Bubble time (p - 1)(f + b), divided by v where interleaved, around m (f + b) of work.

    Source: Narayanan et al., arXiv 2104.04473, sections 2.2.1 and 2.2.2.
    """
    random = Random(13)
    for _ in range(500):
        p, v = random.randint(1, 8), 1
        m = random.randint(1, 24)
        if name == "interleaved":
            p, v = random.randint(2, 6), random.randint(2, 4)
            m = p * random.randint(1, 4)
        f, b = random.uniform(0.1, 3), random.uniform(0.1, 5)
        expected_s = m * (f + b) + (p - 1) * (f + b) / v
        found_s = simulate_step(_plan(name, p, m, v, (f, b))).seconds
        assert found_s == pytest.approx(expected_s, rel=1e-9), (p, m, v, f, b)


def test_narayanan_example_by_hand() -> None:
    # p = 4, m = 8, f = 1, b = 2: bubble (4 - 1) * 3 = 9 after 8 * 3 = 24; interleaved twice: 4.5
    assert simulate_step(_plan("1f1b", 4, 8, 1, (1, 2))).seconds == pytest.approx(33)
    assert simulate_step(_plan("interleaved", 4, 8, 2, (1, 2))).seconds == pytest.approx(28.5)


def _longest_path_s(plan: StepPlan) -> float:
    """Evaluate the step in max-plus algebra: repeat until no end of a pass moves any more.

    A pass starts when the pass before it in its stage's order has ended and when its input is
    there; it reads the schedule and nothing of the interpreter.
    """
    stages, chunks = len(plan.stages), len(plan.stages[0].forward)
    depth = stages * chunks
    ends: dict[tuple[int, Action], float] = {
        (stage, action): 0.0 for stage, order in enumerate(plan.orders) for action in passes(order)
    }
    moved = True
    while moved:
        moved = False
        for stage, order in enumerate(plan.orders):
            free_s = 0.0
            for action in passes(order):
                start_s = max(free_s, _input_s(plan, ends, depth, (stage, action)))
                cost = plan.stages[stage]
                times = cost.forward if action.kind == "F" else cost.backward
                free_s = start_s + times[action.chunk].seconds
                if free_s > ends[stage, action] + 1e-12:
                    ends[stage, action], moved = free_s, True
    return max(ends.values())


def _input_s(
    plan: StepPlan, ends: dict[tuple[int, Action], float], depth: int, at: tuple[int, Action]
) -> float:
    stage, action = at
    stages = len(plan.stages)
    position = action.chunk * stages + stage
    if action.kind == "F" and position == 0:
        return 0.0
    if action.kind == "B" and position == depth - 1:
        return ends[stage, replace(action, kind="F")]
    before = position - 1 if action.kind == "F" else position + 1
    chunk, neighbour = divmod(before, stages)
    send_s = plan.stages[neighbour].send_s if stages > 1 else 0.0
    return ends[neighbour, replace(action, chunk=chunk)] + send_s


def test_unequal_stages_take_the_longest_path() -> None:
    """Random times and transfers per stage; nothing but passes and transfers costs anything."""
    random = Random(14)
    for _ in range(150):
        plan = random_plan(random)
        stages = tuple(
            replace(cost, reduce_s=0.0, gather_s=0.0, update_s=0.0) for cost in plan.stages
        )
        plan = replace(plan, stages=stages)
        assert simulate_step(plan).seconds == pytest.approx(_longest_path_s(plan), rel=1e-9)


def _check_order(order: Order, micro_batches: int, chunks: int) -> None:
    found = [(a.kind, a.micro_batch, a.chunk) for a in passes(order)]
    every = {(k, i, c) for k in "FB" for i in range(micro_batches) for c in range(chunks)}
    assert set(found) == every
    assert len(found) == len(every)
    place = {one: n for n, one in enumerate(found)}
    for _, micro_batch, chunk in every:
        assert place["F", micro_batch, chunk] < place["B", micro_batch, chunk]


def test_orders_contain_each_pass_once_and_forward_first() -> None:
    for p in range(1, 7):
        for m in range(1, 13):
            for stage in range(p):
                _check_order(SCHEDULES["gpipe"](stage, p, m, 1), m, 1)
                _check_order(SCHEDULES["1f1b"](stage, p, m, 1), m, 1)
                for v in (2, 3):
                    _check_order(SCHEDULES["interleaved"](stage, p, m * p, v), m * p, v)


def test_in_flight_micro_batches() -> None:
    """1F1B holds min(p - s, m) (arXiv 2104.04473, section 2.2.1); GPipe holds all m."""
    for p in range(1, 9):
        for m in range(1, 13):
            for s in range(p):
                assert most_in_flight(SCHEDULES["1f1b"](s, p, m, 1)) == {0: min(p - s, m)}
                assert most_in_flight(SCHEDULES["gpipe"](s, p, m, 1)) == {0: m}


def test_interleaved_holds_what_korthikanti_says() -> None:
    """The first stage holds L (1 + (p - 1) / (p v)) layers of activations, its share L / p of each.

    In chunks of L / (p v) layers: p v + p - 1 chunks (arXiv 2205.05198, section 4.2.3), for more
    micro-batches than stages.
    """
    for p in (2, 4, 8):
        for v in (2, 3):
            held = most_in_flight(SCHEDULES["interleaved"](0, p, 4 * p, v))
            assert sum(held.values()) == p * v + p - 1
