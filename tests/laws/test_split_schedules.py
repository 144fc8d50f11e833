"""Law 13 for schedules with weight gradients apart: the bubbles of their papers."""

from pathlib import Path
from random import Random
from typing import Literal

import pytest

from moesim.cost.times import StageCost
from moesim.errors import ScenarioError
from moesim.sim.training.dualpipe import dualpipe, dualpipe_v
from moesim.sim.training.schedules import Action, Order, passes
from moesim.sim.training.step import StepPlan, StepResult, simulate_step
from moesim.sim.training.zero_bubble import zb_h1, zb_h2, zb_v
from moesim.spec.load import load_scenario
from moesim.study.outcome import Outcome
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate
from moesim.study.split import stage_chunks
from tests.laws.held import most_in_flight
from tests.laws.test_clock import one_pass

Route = Literal["loop", "two_ways", "v"]


def _run(
    orders: tuple[Order, ...], times: dict[str, float], route: Route = "loop", *,
    post_validation: bool = False,
) -> StepResult:  # fmt: skip
    chunks = 1 if route == "loop" else 2
    cost = StageCost(
        forward=(one_pass(times["f"]),) * chunks,
        backward=(one_pass(times["b"] + times["w"]),) * chunks,
        inputs=(one_pass(times["b"]),) * chunks,
        weights=(one_pass(times["w"]),) * chunks,
        joint=((one_pass(times["both"]),) * chunks,) * chunks,
        send_s=0.0, reduce_s=0.0, gather_s=0.0, update_s=0.0,
    )  # fmt: skip
    plan = StepPlan(
        orders=orders, stages=(cost,) * len(orders), overlap_reduce=False, overlap_gather=False,
        overlapped_rate=1.0, route=route, post_validation=post_validation,
    )  # fmt: skip
    return simulate_step(plan)


def test_500_shapes_of_zb_h1() -> None:
    """Bubble (p - 1)(f + b - w) around m (f + b + w), b without w (arXiv 2401.10241, table 2)."""
    random = Random(15)
    for _ in range(500):
        p = random.randint(1, 8)
        m = random.randint(p, 24)
        f, b = random.uniform(0.1, 3), random.uniform(0.1, 3)
        w = random.uniform(0.05, 1) * min(f, b)
        orders = tuple(zb_h1(stage, p, m) for stage in range(p))
        found_s = _run(orders, {"f": f, "b": b, "w": w, "both": 0.0}).seconds
        expected_s = m * (f + b + w) + (p - 1) * (f + b - w)
        assert found_s == pytest.approx(expected_s, rel=1e-9), (p, m, f, b, w)


def test_500_shapes_of_dualpipe() -> None:
    """Bubble (p/2 - 1)(F&B + B - 3W) (arXiv 2412.19437, table 2), B with its weight gradients W.

    With forward passes as long as the gradients of inputs, as the paper draws it; of the stages in
    the middle, since those further out have fewer pairs, so more to do and less to wait.
    """
    random = Random(16)
    for _ in range(500):
        p = 2 * random.randint(1, 4)
        m = 2 * random.randint(p, 2 * p)
        f = random.uniform(0.5, 1.5)
        w = f * random.uniform(0.3, 1)
        both = random.uniform(f + w, 2 * f + w)
        orders = tuple(dualpipe(stage, p, m) for stage in range(p))
        result = _run(orders, {"f": f, "b": f, "w": w, "both": both}, "two_ways")
        idle_s = result.seconds - result.stages[p // 2].busy_s
        expected_s = (p / 2 - 1) * (both + f + w - 3 * w)
        assert idle_s == pytest.approx(expected_s, abs=1e-9), (p, m, f, w, both)


def test_500_shapes_of_dualpipe_v() -> None:
    """DualPipe's bubble with 2 p chunks: (p - 1)(F&B + B - 3W) (deepseek-ai/DualPipe, README.md).

    On the last stage, where the V turns: it has most pairs.
    """
    random = Random(17)
    for _ in range(500):
        p = random.randint(1, 6)
        m = random.randint(2 * p, 4 * p)
        f = random.uniform(0.5, 1.5)
        w = f * random.uniform(0.3, 1)
        both = random.uniform(f + w, 2 * f + w)
        orders = tuple(dualpipe_v(stage, p, m) for stage in range(p))
        result = _run(orders, {"f": f, "b": f, "w": w, "both": both}, "v")
        idle_s = result.seconds - result.stages[-1].busy_s
        assert idle_s == pytest.approx((p - 1) * (both + f + w - 3 * w), abs=1e-9), (p, m, f, w)


def test_dualpipe_by_hand() -> None:
    # p = 4, m = 8 of one second each, nothing hidden: work 8 * 3, bubble (4/2 - 1)(3 + 2 - 3) = 2
    orders = tuple(dualpipe(stage, 4, 8) for stage in range(4))
    assert _run(orders, {"f": 1, "b": 1, "w": 1, "both": 3}, "two_ways").seconds == pytest.approx(
        26
    )
    # the first stage: two forward passes from its end, then one each way, then pairs
    names = [str(one) for one in orders[0][:6]]
    assert names == ["F0.0", "F1.0", "F2.0", "F4.1", "I4.1", "W4.1"]


def test_every_pass_once_and_in_order() -> None:
    for p in (2, 4, 6, 8):
        for stage in range(p):
            for m in (2 * p, 4 * p + 2):
                for found in (passes(dualpipe(stage, p, m)), passes(zb_h1(stage, p, m))):
                    _check(found, m)


def _check(found: list[Action], m: int) -> None:
    place = {(one.kind, one.micro_batch): number for number, one in enumerate(found)}
    assert len(place) == len(found)
    for number in range(m):
        if ("B", number) in place:
            assert place["F", number] < place["B", number]
            assert ("I", number) not in place
        else:
            assert place["F", number] < place["I", number] < place["W", number]


def test_what_is_held() -> None:
    """ZB-H1 holds p on every stage (arXiv 2401.10241), DualPipe p + 1 (arXiv 2412.19437)."""
    for p in (2, 4, 6, 8):
        for stage in range(p):
            assert most_in_flight(zb_h1(stage, p, 4 * p)) == {0: p}
            assert sum(most_in_flight(dualpipe(stage, p, 4 * p)).values()) <= p + 1
        assert max(
            sum(most_in_flight(dualpipe(stage, p, 4 * p)).values()) for stage in range(p)
        ) == p + 1  # fmt: skip


def _outcome(folder: Path, parallel: str, overlap: str = "none", model: str = "olmoe-1b-7b") -> (
    Outcome
):  # fmt: skip
    file = folder / "split.yaml"
    file.write_text(
        f"model: {model}\ncluster: {{profile: dgx-h100, devices: 16}}\nparallel: {parallel}\n"
        "training: {sequence_length: 2048, global_batch: 64, "
        f"overlap: {{expert_exchange: {overlap}}}}}\n",
        encoding="utf-8",
    )
    return simulate(resolve(load_scenario(file)))


def test_zero_bubbles_are_smaller_and_nothing_is_lost(tmp_path: Path) -> None:
    plain = _outcome(tmp_path, "{pp: 4, ep: 4}")
    split = _outcome(tmp_path, "{pp: 4, ep: 4, schedule: zb_h1}")
    assert split.metrics.step_s < plain.metrics.step_s
    for one, other in zip(split.stages, plain.stages, strict=True):
        parts_s = one.inputs[0].seconds + one.weights[0].seconds
        assert parts_s == pytest.approx(other.backward[0].seconds, rel=1e-12)
    both_ways = _outcome(tmp_path, "{pp: 4, ep: 4, schedule: dualpipe}")
    paired = _outcome(tmp_path, "{pp: 4, ep: 4, schedule: dualpipe}", "batch")
    assert paired.metrics.step_s < both_ways.metrics.step_s < plain.metrics.step_s
    for outcome in (split, both_ways, paired):
        parts_s = sum(share.seconds for share in outcome.breakdown)
        assert parts_s == pytest.approx(outcome.steps[0].seconds, rel=1e-6)
    folded = _outcome(tmp_path, "{pp: 4, vpp: 2, ep: 4, schedule: dualpipe_v}")
    assert folded.metrics.step_s < plain.metrics.step_s
    assert [placed.number for placed in stage_chunks(folded.run)[1][1].layers] == [12, 13]
    # both copies of the weights
    assert both_ways.memory[1].expert_weights == 2 * plain.memory[1].expert_weights


@pytest.mark.parametrize(
    ("parallel", "says"),
    [
        ("{pp: 2, vpp: 2, ep: 4, schedule: zb_h1}", "vpp above 1 needs schedule 1f1b"),
        ("{pp: 4, ep: 4, schedule: dualpipe_v}", "give vpp: 2"),
        ("{pp: 1, ep: 8, schedule: dualpipe}", "even number of stages"),
    ],
)
def test_what_dualpipe_needs(tmp_path: Path, parallel: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        _outcome(tmp_path, parallel)


def test_dualpipe_needs_micro_batches(tmp_path: Path) -> None:
    file = tmp_path / "few.yaml"
    file.write_text(
        "model: olmoe-1b-7b\ncluster: {profile: dgx-h100, devices: 16}\n"
        "parallel: {pp: 4, ep: 4, schedule: dualpipe}\n"
        "training: {sequence_length: 2048, global_batch: 24}\n",
        encoding="utf-8",
    )
    with pytest.raises(ScenarioError, match=r"2 \* pp = 8 or more; there are 6"):
        resolve(load_scenario(file))


def _own_span_s(result: StepResult, stage: int) -> float:
    """Return the time from a stage's first pass to its last one's end."""
    own = [one for one in result.slices if one.track == f"stage {stage} compute"][:-1]
    return max(one.start_s + one.duration_s for one in own) - own[0].start_s


def test_500_shapes_of_zb_h2() -> None:
    """A stage is idle (p - 1)(f + b - 2w) between its passes (arXiv 2401.10241, table 2)."""
    random = Random(18)
    for _ in range(500):
        p = random.randint(1, 7)
        m = random.randint(2 * p - 1, 4 * p + 5)
        f, b = random.uniform(0.1, 3), random.uniform(0.1, 3)
        w = random.uniform(0.05, 1) * min(f, b)
        orders = tuple(zb_h2(stage, p, m) for stage in range(p))
        result = _run(orders, {"f": f, "b": b, "w": w, "both": 0.0})
        longest_s = max(_own_span_s(result, stage) for stage in range(p))
        expected_s = m * (f + b + w) + (p - 1) * (f + b - 2 * w)
        assert longest_s == pytest.approx(expected_s, rel=1e-9), (p, m, f, b, w)


def test_zb_v_has_no_bubble_inside_a_stage() -> None:
    """6 m passes of equal length one after the other, from s on (arXiv 2401.10241, section 6).

    It holds 2 p chunks' activations, as much as 1F1B's first stage (table 3 there); ZB-H2 2p - 1.
    """
    for p in range(1, 9):
        for m in (2 * p - 1, 2 * p, 5 * p):
            orders = tuple(zb_v(stage, p, m) for stage in range(p))
            result = _run(orders, {"f": 1, "b": 1, "w": 1, "both": 0.0}, "v")
            assert [_own_span_s(result, stage) for stage in range(p)] == [6 * m] * p
            assert [one.start_s for one in result.slices if one.name == "F0.0"] == list(range(p))
            assert [sum(most_in_flight(order).values()) for order in orders] == [2 * p] * p
            bold = [zb_h2(stage, p, m) for stage in range(p)]
            assert [most_in_flight(order) for order in bold] == [{0: 2 * p - 1}] * p


def test_zb_v_by_hand() -> None:
    # p = 2, m = 3: PyTorch's ScheduleZBVZeroBubble draws rank 1 as F0 f0 F1 f1 i1.. after one slot
    names = [[str(one) for one in zb_v(stage, 2, 3)] for stage in range(2)]
    assert names[0] == [
        "F0.0", "F1.0", "F2.0", "F0.1", "I0.1", "W0.1", "F1.1", "I1.1", "W1.1",
        "I0.0", "W0.0", "F2.1", "I2.1", "W2.1", "I1.0", "W1.0", "I2.0", "W2.0",
    ]  # fmt: skip
    assert names[1] == [
        "F0.0", "F0.1", "F1.0", "F1.1", "I0.1", "W0.1", "F2.0", "I0.0", "W0.0",
        "F2.1", "I1.1", "W1.1", "I1.0", "I2.1", "I2.0", "W1.0", "W2.1", "W2.0",
    ]  # fmt: skip


def test_a_step_without_a_wait_for_the_norm_is_its_longest_stage() -> None:
    """Then ZB-H2 of equal passes takes m (f + b + w) and nothing else."""
    orders = tuple(zb_h2(stage, 4, 9) for stage in range(4))
    waits = _run(orders, {"f": 1, "b": 1, "w": 1, "both": 0.0})
    assert waits.seconds == pytest.approx(9 * 3 + 3)
    free = _run(orders, {"f": 1, "b": 1, "w": 1, "both": 0.0}, post_validation=True)
    assert free.seconds == pytest.approx(9 * 3)


def test_both_ends_share_one_embedding_in_a_v(tmp_path: Path) -> None:
    """The MTP module of the last chunk needs the embedding; in a V the first chunk lies with it."""
    loop = _outcome(tmp_path, "{pp: 4, ep: 4}", model="glm-4.5").memory
    folded = _outcome(tmp_path, "{pp: 4, vpp: 2, ep: 4, schedule: zb_v}", model="glm-4.5").memory
    # in a loop the last stage holds the logits and a copy of the first stage's table
    assert loop[3].embedding_weights == 2 * loop[0].embedding_weights
    assert folded[0].embedding_weights == 2 * loop[0].embedding_weights
    assert folded[3].embedding_weights == 0


def test_replicas_of_dualpipe_lie_on_two_stages(tmp_path: Path) -> None:
    """Twice the weights, over twice as many ranks: a rank updates as many as without."""
    plain = _outcome(tmp_path, "{pp: 4, ep: 4}")
    both = _outcome(tmp_path, "{pp: 4, ep: 4, schedule: dualpipe}")
    inner, outer = both.memory[1].optimizer_states, plain.memory[1].optimizer_states
    assert inner == pytest.approx((outer + plain.memory[2].optimizer_states) / 2)
    # and with a single replica of each stage there is still a sum over the two
    alone = _outcome(tmp_path, "{pp: 4, tp: 4, ep: 4, etp: 1, schedule: dualpipe}")
    single = _outcome(tmp_path, "{pp: 4, tp: 4, ep: 4, etp: 1}")
    assert all(stage.reduce_s > 0 for stage in alone.stages)
    assert all(stage.reduce_s == 0 for stage in single.stages)
