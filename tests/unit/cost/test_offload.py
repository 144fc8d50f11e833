"""Activations in the host's memory: what waits for copies, what stays on the device."""

from dataclasses import replace
from pathlib import Path

import pytest

from moesim.cost.offload import COPIES, copied_out, fetched, offloaded, on_device
from moesim.cost.times import Part
from moesim.cost.work import Block
from moesim.errors import ScenarioError
from moesim.study.resolve import Training
from moesim.study.simulate import simulate
from tests.laws.small_runs import dense, resolved, with_device, without_curves


def _work(*seconds: float) -> list[list[Part]]:
    return [[Part("compute", "work", one)] for one in seconds]


def _copies(blocks: list[list[Part]]) -> list[float]:
    return [sum(part.seconds for part in own if part.name == COPIES) for own in blocks]


def test_a_copy_runs_beside_the_next_layer() -> None:
    """Copies of 5 and 7 s beside layers of 2 and 3 s: 3 and 4 s stand out; the last has ended."""
    assert _copies(copied_out(_work(9, 2, 3), [5.0, 7.0, 0.0])) == [0, 3, 4]


def test_a_fetch_runs_beside_the_layer_before_it_in_the_backward_pass() -> None:
    """The first, of 4 s, stands alone; of 5 s beside 3 s of the first layer 2 s stand out."""
    assert _copies(fetched(_work(3, 6), [4.0, 5.0])) == [4 + 2, 0]
    assert _copies(fetched(_work(3, 6), [0.0, 2.0])) == [0, 0]


def test_the_first_layers_go_and_ends_never() -> None:
    end, layer = Block([], is_layer=False), Block([])
    assert offloaded([end, layer, layer, layer, end], 2) == [False, True, True, False, False]
    found = on_device([end, layer, layer, layer, end], 3, 4)
    assert [count for _, count in found] == [4, 1, 1, 0, 4]


def _run(folder: Path, layers: int) -> Training:
    changes = {"parallel": {"ep": 1}, "training": {"offload_layers": layers, "recompute": "full"}}
    run = without_curves(resolved(folder, changes, dense(1024)))
    return with_device(run, host_link_bytes_per_s=1e9)


def test_a_slow_host_link_bounds_both_passes(tmp_path: Path) -> None:
    """With full recomputation a layer keeps its input, 1024 tokens of 512 in bf16: 1.05 ms each.

    Over 1 GB/s that is longer than any layer, so a layer lasts as long as its neighbour's copy.
    The eighth copy out runs beside the logits; its way back is the first fetch but for those.
    """
    copy_s = 1024 * 512 * 2 / 1e9
    plain, off = simulate(_run(tmp_path, 0)), simulate(_run(tmp_path, 8))
    forward, backward = off.stages[0].forward[0], off.stages[0].backward[0]
    waits = [sum(p.seconds for p in one.parts if p.name == COPIES) for one in (forward, backward)]
    own_s = [one.seconds for one in (plain.stages[0].forward[0], plain.stages[0].backward[0])]
    assert all(0 < 8 * copy_s - wait_s < one_s for wait_s, one_s in zip(waits, own_s, strict=True))
    assert forward.seconds >= 8 * copy_s
    assert backward.seconds >= 8 * copy_s


def test_two_offloaded_layers_stay_on_the_device(tmp_path: Path) -> None:
    (plain,), (off,) = (simulate(_run(tmp_path, n)).memory for n in (0, 8))
    assert plain.activations - off.activations == pytest.approx(6 * 1024 * 512 * 2)


def test_a_fast_host_link_costs_nothing(tmp_path: Path) -> None:
    run = replace(with_device(_run(tmp_path, 8), host_link_bytes_per_s=1e15))
    plain = simulate(_run(tmp_path, 0)).metrics.step_s
    assert simulate(run).metrics.step_s == pytest.approx(plain)


def test_more_layers_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="the model has 8 layers"):
        _run(tmp_path, 9)
