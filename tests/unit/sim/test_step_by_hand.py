"""A step of two stages, worked out on paper; deadlocks name who waits."""

from dataclasses import replace

import pytest

from moesim.cost.times import Part, PassCost, StageCost
from moesim.errors import SimulationError
from moesim.sim.kernel import Clock
from moesim.sim.training.schedules import Action, interleaved, one_f_one_b
from moesim.sim.training.step import StepPlan, simulate_step


def _pass(seconds: float, layers: int = 1) -> PassCost:
    return PassCost((Part("compute", "work", seconds),), seconds, layers)


def _cost(
    forward_s: float, backward_s: float, *, send_s: float = 0.0, reduce_s: float = 0.0,
    gather_s: float = 0.0, update_s: float = 0.0, embedding_s: float = 0.0,
) -> StageCost:  # fmt: skip
    return StageCost(
        forward=(_pass(forward_s),), backward=(_pass(backward_s, 4),),
        send_s=send_s, reduce_s=reduce_s, gather_s=gather_s, update_s=update_s,
        embedding_s=embedding_s,
    )  # fmt: skip


def _plan(costs: tuple[StageCost, ...], micro_batches: int, **others: object) -> StepPlan:
    stages = len(costs)
    plan = StepPlan(
        orders=tuple(one_f_one_b(s, stages, micro_batches) for s in range(stages)), stages=costs,
        overlap_reduce=False, overlap_gather=False, overlapped_rate=0.5,
    )  # fmt: skip
    return replace(plan, **others)  # type: ignore[arg-type]


def test_two_stages_on_paper() -> None:
    """f = 1 and 2, b = 3 and 4, send 0.5, two micro-batches.

    stage 0: F0 0-1, F1 1-2; stage 1: F0 1.5-3.5, B0 3.5-7.5, F1 7.5-9.5, B1 9.5-13.5;
    stage 0: B0 8-11, B1 14-17.
    """
    result = simulate_step(_plan((_cost(1, 3, send_s=0.5), _cost(2, 4, send_s=0.5)), 2))
    found = {(s.track, s.name): (s.start_s, s.start_s + s.duration_s) for s in result.slices}
    assert found["stage 0 compute", "F1.0"] == (1, 2)
    assert found["stage 1 compute", "F0.0"] == (1.5, 3.5)
    assert found["stage 1 compute", "B0.0"] == (3.5, 7.5)
    assert found["stage 1 compute", "F1.0"] == (7.5, 9.5)
    assert found["stage 1 compute", "B1.0"] == (9.5, 13.5)
    assert found["stage 0 compute", "B0.0"] == (8, 11)
    assert found["stage 0 compute", "B1.0"] == (14, 17)
    assert result.seconds == 17
    assert [log.busy_s for log in result.stages] == [8, 12]


def test_gather_reduce_and_update_follow_each_other_without_overlap() -> None:
    # gather 2, F and B 1 + 3, reduce 5, update 0.25
    plan = _plan((_cost(1, 3, gather_s=2.0, reduce_s=5.0, update_s=0.25),), 1)
    result = simulate_step(plan)
    assert result.seconds == pytest.approx(11.25)
    (log,) = result.stages
    assert (log.gather_exposed_s, log.reduce_exposed_s, log.update_s) == (2.0, 5.0, 0.25)


def test_both_ends_wait_for_each_other_to_sum_their_embedding() -> None:
    """Three stages, f = b = 1: stage 2 is done at 4, stage 1 at 5, stage 0 at 6.

    Reductions of 2, 3 and 0.5 end at 8, 8 and 4.5; the ends sum from 8 to 12, all update then.
    """
    ends = {"embedding_s": 4.0, "update_s": 0.25}
    costs = (
        _cost(1, 1, reduce_s=2.0, **ends), _cost(1, 1, reduce_s=3.0, update_s=0.25),
        _cost(1, 1, reduce_s=0.5, **ends),
    )  # fmt: skip
    result = simulate_step(_plan(costs, 1))
    assert result.seconds == pytest.approx(12.25)
    assert [log.reduce_exposed_s for log in result.stages] == pytest.approx([6.0, 3.0, 4.5])


def test_hidden_communication_on_paper() -> None:
    """Beside compute transfers run at half their rate.

    The gather takes 2 / 0.5 = 4 s, 3 s more than the first pass. The reduction begins with the last
    backward pass, 3 s of which hide 1.5 of its 5 s.
    """
    plan = _plan(
        (_cost(1, 3, gather_s=2.0, reduce_s=5.0),), 1, overlap_gather=True, overlap_reduce=True
    )
    (log,) = simulate_step(plan).stages
    assert log.gather_exposed_s == pytest.approx(3.0)
    assert log.reduce_exposed_s == pytest.approx(3.5)
    # a short reduction still shows the part of its first layer, one of four
    plan = _plan((_cost(1, 30, reduce_s=4.0),), 1, overlap_reduce=True)
    (log,) = simulate_step(plan).stages
    assert log.reduce_exposed_s == pytest.approx(1.0)


def _interleaved_plan(reduce_s: float) -> StepPlan:
    """Two stages with two chunks of f = 1 and b = 2, two micro-batches, transfers free.

    stage 0: F0.0 0-1, F1.0 1-2, F0.1 2-3, F1.1 3-4, B0.1 6-8, B1.1 9-11, B0.0 11-13, B1.0 13-15;
    stage 1: F0.0 1-2, F1.0 2-3, F0.1 3-4, B0.1 4-6, F1.1 6-7, B1.1 7-9, B0.0 9-11, B1.0 11-13.
    """
    cost = StageCost(
        forward=(_pass(1, 4), _pass(1, 4)), backward=(_pass(2, 4), _pass(2, 4)),
        send_s=0.0, reduce_s=reduce_s, gather_s=0.0, update_s=0.0,
    )  # fmt: skip
    return StepPlan(
        orders=tuple(interleaved(stage, 2, 2, 2) for stage in range(2)), stages=(cost, cost),
        overlap_reduce=True, overlap_gather=False, overlapped_rate=0.5,
    )  # fmt: skip


def test_interleaved_step_on_paper() -> None:
    found = {(s.track, s.name): s.start_s for s in simulate_step(_interleaved_plan(0.0)).slices}
    assert [found["stage 0 compute", name] for name in ("B0.1", "B1.1", "B0.0", "B1.0")] == [
        6, 9, 11, 13
    ]  # fmt: skip
    assert [found["stage 1 compute", name] for name in ("B0.1", "F1.1", "B1.1", "B1.0")] == [
        4, 6, 7, 11
    ]  # fmt: skip
    assert simulate_step(_interleaved_plan(0.0)).seconds == 15


@pytest.mark.parametrize(
    ("reduce_s", "exposed_s"),
    [
        # chunk 1 is final from 9 on: its 2 s take until 13 beside compute; 1 s of chunk 0's hides
        (4.0, 1.0),
        # chunk 1's 4 s: 6 s at half the rate hide 3 of them, and nothing of chunk 0's
        (8.0, 5.0),
        # all hides but the first of eight layers, final with the last pass
        (1.6, 0.2),
    ],
)
def test_chunks_are_reduced_one_by_one(reduce_s: float, exposed_s: float) -> None:
    """The gradients of chunk 1 are final two backward passes before those of chunk 0.

    Stage 0 ends its passes at 15, stage 1 at 13 with the same passes after each other.
    """
    result = simulate_step(_interleaved_plan(reduce_s))
    assert [log.reduce_exposed_s for log in result.stages] == pytest.approx([exposed_s] * 2)
    assert result.seconds == pytest.approx(15 + exposed_s)


def test_all_stages_wait_for_the_norm_of_the_gradients() -> None:
    plan = _plan((_cost(1, 1, update_s=1.0), _cost(1, 1, reduce_s=10.0, update_s=1.0)), 1)
    result = simulate_step(plan)
    # stage 1 ends its backward pass at 3 and its reduction at 13
    assert [log.end_s for log in result.stages] == [14, 14]


def test_an_impossible_schedule_names_who_waits() -> None:
    plan = _plan((_cost(1, 1), _cost(1, 1)), 1)
    wrong = (Action("B", 0), Action("F", 0))
    with pytest.raises(SimulationError, match=r"stage 1 waits for the input of B0\.0"):
        simulate_step(replace(plan, orders=(plan.orders[0], wrong)))


def test_clock_stops_when_nothing_is_left() -> None:
    clock = Clock()
    clock.after(2.0)
    clock.after(5.0)
    assert clock.run() == 5.0


def test_interleaved_order_by_hand() -> None:
    """Two stages, two chunks, four micro-batches; the last stage runs (v - 1) p = 2 ahead.

    Megatron-LM: forward passes 0.0 1.0 0.1 1.1 2.0 3.0 2.1 3.1 (micro-batch.chunk), backward
    passes 0.1 1.1 0.0 1.0 2.1 3.1 2.0 3.0.
    """
    order = " ".join(str(action) for action in interleaved(1, 2, 4, 2))
    assert order == (
        "F0.0 F1.0 F0.1 B0.1 F1.1 B1.1 F2.0 B0.0 F3.0 B1.0 F2.1 B2.1 F3.1 B3.1 B2.0 B3.0"
    )
