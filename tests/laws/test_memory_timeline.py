"""Memory over the first step: its peak is the peak that runs report, whatever the schedule."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from moesim.cost.activations import ChunkActivations, Moment, at_moment, fullest
from moesim.sim.training.moments import after, fullest_moments, moments
from moesim.sim.training.registry import stage_order
from moesim.sim.training.schedules import Action, Pair
from moesim.study.memory_timeline import memory_timeline
from tests.laws.small_runs import outcome

SCHEDULES: list[dict[str, Any]] = [
    {"parallel": {"pp": 1}},
    {"parallel": {"pp": 2, "schedule": "gpipe"}},
    {"parallel": {"pp": 2, "ep": 4}, "training": {"recompute": "full"}},
    {"parallel": {"pp": 4, "ep": 4}, "training": {"offload_layers": 1, "micro_batch": 2}},
    {"parallel": {"pp": 2, "vpp": 2}, "training": {"overlap": {"expert_exchange": "batch"}}},
    {"parallel": {"pp": 4, "vpp": 2, "ep": 4}, "training": {"recompute": ["moe_act"]}},
    {"parallel": {"pp": 4, "schedule": "zb_h1", "ep": 4}},
    {"parallel": {"pp": 4, "schedule": "dualpipe", "ep": 4}},
    {"parallel": {"pp": 2, "vpp": 2, "schedule": "dualpipe_v"}},
    {"parallel": {"pp": 2}, "routing": {"load": {"law": "dirichlet", "cv": 0.5}}},
]


@pytest.mark.parametrize("changes", SCHEDULES, ids=str)
def test_the_peak_of_the_timeline_is_the_peak(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = outcome(tmp_path, changes)
    for stage, peak in enumerate(found.memory):
        levels = memory_timeline(found, stage)
        assert max(level.memory.total for level in levels) == pytest.approx(peak.total, rel=1e-12)
        times = [level.start_s for level in levels]
        assert times == sorted(times)
        assert times[0] == 0.0
        assert times[-1] <= found.first.seconds
        for one in (levels[0], levels[-1]):
            assert one.memory.activations == one.memory.working_set == 0.0
            assert not any(one.held)


def test_few_micro_batches_have_the_peak_of_many() -> None:
    """Random shapes of every schedule, chunks of random size: the moments of 4 p micro-batches and
    all moments of more have the same fullest one."""
    random = Random(5)
    for name in ("1f1b", "interleaved", "zb_h1", "dualpipe", "dualpipe_v"):
        for _ in range(20):
            p = 2 * random.randint(1, 4)
            v = {"1f1b": 1, "zb_h1": 1, "interleaved": random.randint(2, 3)}.get(name, 2)
            held = tuple(
                ChunkActivations(np.zeros(1), np.array([random.random()]), random.random())
                for _ in range(v)
            )
            for stage in range(p):
                few, many = (stage_order(name, stage, p, (m, v), False) for m in (4 * p, 6 * p))
                every = [one for during in moments(many, v) for one in during]
                most = max(sum(at_moment(held, one)) for one in every)
                assert sum(fullest(held, fullest_moments(few, v))) == pytest.approx(most)


def test_levels_of_1f1b_by_hand(tmp_path: Path) -> None:
    """Two stages: the first takes a second micro-batch before it gives back the first one's room,
    the last never holds two; while a stage waits nothing is at work."""
    found = outcome(tmp_path, {"parallel": {"pp": 2}})
    first, last = (memory_timeline(found, stage) for stage in range(2))
    assert [(one.doing, one.held) for one in first if one.doing][:5] == [
        ("F0.0", (1,)), ("F1.0", (2,)), ("B0.0", (2,)), ("F2.0", (2,)), ("B1.0", (2,)),
    ]  # fmt: skip
    assert [(one.doing, one.held) for one in last if one.doing][:3] == [
        ("F0.0", (1,)), ("B0.0", (1,)), ("F1.0", (1,)),
    ]  # fmt: skip
    waiting = [one for one in first if not one.doing]
    assert all(one.memory.working_set == 0.0 for one in waiting)
    one, two = (level.memory.activations for level in first if level.doing in ("F0.0", "F1.0"))
    assert two == 2 * one > 0.0


def test_gradients_of_weights_need_what_was_kept() -> None:
    order = (Action("F", 0), Action("I", 0), Action("F", 1), Action("W", 0), Action("B", 1))
    assert moments(order, 1) == [
        (Moment((1,), (0,)),), (Moment((1,), (0,)),), (Moment((2,), (0,)),), (Moment((2,)),),
        (Moment((1,), (0,)),),
    ]  # fmt: skip
    assert fullest_moments(order, 1) == (Moment((2,), (0,)),)
    assert after(order[4], Moment((1,), (0,))) == Moment((0,))


def test_a_pair_gives_back_before_it_takes() -> None:
    pair = Pair(Action("F", 1, 1), Action("B", 0, 0))
    (_, both) = moments((Action("F", 0, 0), pair), 2)
    assert both == (Moment((1, 0), (0,)), Moment((0, 1), (1,)))
