"""What ranks hold of micro-batches in flight, by hand."""

from pathlib import Path

import numpy as np
import pytest

from moesim.cost.activations import ChunkActivations, VariedActivations
from moesim.errors import ScenarioError
from moesim.sim.training.schedules import Action, Pair
from moesim.study.micro_batches import held
from moesim.study.report.summary import routing_summary
from tests.laws.small_runs import outcome


def _chunk(each: list[list[float]], working: float = 0.0, once: float = 0.0) -> VariedActivations:
    whole = ChunkActivations(np.full(1, once), np.zeros(1), working)
    return VariedActivations(whole, np.array(each))


def test_ranks_hold_the_micro_batches_in_flight() -> None:
    """Two ranks: 1 + 4 and 5 + 1 with micro-batches 0 and 1 in flight, then 4 + 2 and 1 + 2."""
    order = (Action("F", 0), Action("F", 1), Action("B", 0), Action("F", 2), Action("B", 1))
    chunk = _chunk([[1, 5], [4, 1], [2, 2]], working=10)
    during = list(held(order, (chunk,)))
    assert [kept for ((_, kept, _), *_) in during] == [5, 6, 6, 6, 6]
    assert [left for (*_, (_, left, _)) in during] == [5, 6, 4, 6, 2]
    assert {working for ((_, _, working), *_) in during} == {10}


def test_gradients_of_weights_free_what_gradients_of_inputs_leave() -> None:
    order = (Action("F", 0), Action("I", 0), Action("W", 0))
    during = list(held(order, (_chunk([[3.0]], working=7),)))
    assert [(kept, working) for ((_, kept, working), *_) in during] == [(3, 7), (3, 7), (3, 0)]
    assert during[-1][-1][1] == 0.0


def test_a_pair_frees_before_it_takes() -> None:
    """Chunk 0 goes back with micro-batch 0 (3 bytes), chunk 1 forward with micro-batch 1 (5)."""
    chunks = (_chunk([[3.0], [3.0]]), _chunk([[4.0], [5.0]]))
    order = (Action("F", 0), Pair(Action("F", 1, 1), Action("B", 0)))
    *_, pair = held(order, chunks)
    assert [kept for _, kept, _ in pair] == [3, 5, 5]
    assert [moment.held for moment, _, _ in pair] == [(1, 0), (0, 1), (0, 1)]


def test_what_offloaded_layers_leave_counts_once_a_chunk() -> None:
    order = (Action("F", 0), Action("F", 1), Action("B", 0))
    during = list(held(order, (_chunk([[1.0], [1.0]], once=2),)))
    assert [kept for ((_, kept, _), *_) in during] == pytest.approx([3, 4, 4])


def test_the_summary_tells_all_micro_batches_from_the_first(tmp_path: Path) -> None:
    load = {"routing": {"load": {"law": "lognormal", "cv": 0.6}, "capacity": {"factor": 1.0}}}
    found = outcome(tmp_path, {**load, "training": {"global_batch": 64}})
    said = routing_summary(found)
    assert found.varied is not None
    assert said is not None
    every = said["micro_batches"]
    assert every["number"] == every["drawn"] == found.run.micro_batches == 4
    assert every["least_rank_imbalance"] < every["mean_rank_imbalance"]
    assert every["mean_rank_imbalance"] < every["most_rank_imbalance"]
    layers = found.varied.values()
    lost = sum(one.dropped for one in layers) / sum(one.routed for one in layers)
    assert every["dropped_fraction"] == lost > 0
    assert found.steps[0].dropped == pytest.approx(sum(one.dropped for one in layers) / 4, abs=0.5)
    even = routing_summary(outcome(tmp_path))
    assert even is not None
    assert "micro_batches" not in even


def test_even_loads_have_no_draw_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="law even forces the same counts always; per needs"):
        outcome(tmp_path, {"routing": {"load": {"per": "micro_batch"}}})
