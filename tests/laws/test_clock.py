"""Law 3: the clock never goes back, a track does one thing at a time, causes precede effects."""

import re
from collections import defaultdict
from pathlib import Path
from random import Random

from moesim.cost.times import Part, PassCost, StageCost
from moesim.sim.kernel import Slice
from moesim.sim.training.schedules import SCHEDULES
from moesim.sim.training.step import StepPlan, StepResult, simulate_step
from tests.laws.small_runs import random_outcomes

_PASS = re.compile(r"([FB])(\d+)\.(\d+)")
_ROUNDING_S = 1e-12


def one_pass(seconds: float) -> PassCost:
    """Return a pass of `seconds` of compute."""
    return PassCost((Part("compute", "work", seconds),), seconds, 1)


def random_plan(random: Random) -> StepPlan:
    """Return a step with unequal stages and transfers that cost something."""
    stages = random.choice([1, 2, 3, 4, 8])
    name = random.choice(list(SCHEDULES)) if stages > 1 else "1f1b"
    chunks = random.choice([2, 3]) if name == "interleaved" else 1
    micro_batches = stages * random.randint(1, 3) if chunks > 1 else random.randint(1, 12)
    costs = tuple(
        StageCost(
            forward=tuple(one_pass(random.uniform(0.1, 2)) for _ in range(chunks)),
            backward=tuple(one_pass(random.uniform(0.1, 4)) for _ in range(chunks)),
            send_s=random.choice([0.0, random.uniform(0, 0.5)]),
            reduce_s=random.choice([0.0, random.uniform(0, 5)]),
            gather_s=random.choice([0.0, random.uniform(0, 5)]),
            update_s=random.uniform(0, 0.2),
        )
        for _ in range(stages)
    )
    orders = tuple(SCHEDULES[name](s, stages, micro_batches, chunks) for s in range(stages))
    return StepPlan(
        orders=orders, stages=costs, overlap_reduce=random.random() < 0.5,
        overlap_gather=random.random() < 0.5, overlapped_rate=random.uniform(0.3, 1.0),
    )  # fmt: skip


def test_time_passes_forwards_and_tracks_do_one_thing_at_a_time(tmp_path: Path) -> None:
    random = Random(5)
    for _ in range(200):
        result = simulate_step(random_plan(random))
        _check_tracks(result.slices, result.seconds)
        assert all(log.end_s <= result.seconds + _ROUNDING_S for log in result.stages)
    for made in random_outcomes(tmp_path, 20, seed=5):
        _check_tracks(made.slices, made.steps[0].seconds)


def _check_tracks(slices: tuple[Slice, ...], end_s: float) -> None:
    tracks: dict[str, list[Slice]] = defaultdict(list)
    for piece in slices:
        assert piece.duration_s >= 0
        assert piece.start_s >= 0
        assert piece.start_s + piece.duration_s <= end_s * (1 + 1e-9)
        tracks[piece.track].append(piece)
    for pieces in tracks.values():
        pieces.sort(key=lambda piece: (piece.start_s, piece.duration_s))
        free_s = 0.0
        for piece in pieces:
            assert piece.start_s >= free_s * (1 - 1e-9) - _ROUNDING_S, piece
            free_s = piece.start_s + piece.duration_s


def test_a_pass_starts_after_what_it_needs() -> None:
    random = Random(6)
    for _ in range(200):
        plan = random_plan(random)
        _check_causes(plan, simulate_step(plan))


def _check_causes(plan: StepPlan, result: StepResult) -> None:
    stages = len(plan.stages)
    times: dict[tuple[str, int, int], tuple[float, float]] = {}
    for piece in result.slices:
        found = _PASS.fullmatch(piece.name)
        if found:
            stage = int(piece.track.split()[1])
            position = int(found[3]) * stages + stage
            key = (found[1], int(found[2]), position)
            assert key not in times, f"{piece.name} ran twice on stage {stage}"
            times[key] = (piece.start_s, piece.start_s + piece.duration_s)
    depth = stages * len(plan.stages[0].forward)
    assert len(times) == 2 * depth * (1 + max(micro for _, micro, _ in times))
    for (kind, micro, position), (start_s, _) in times.items():
        if kind == "B":
            assert start_s >= times["F", micro, position][1] - 1e-9
        ahead = position - 1 if kind == "F" else position + 1
        if 0 <= ahead < depth:
            send_s = plan.stages[ahead % stages].send_s if stages > 1 else 0.0
            assert start_s >= times[kind, micro, ahead][1] + send_s - 1e-9
