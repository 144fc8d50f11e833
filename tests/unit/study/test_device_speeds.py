"""A slow device holds up its stage, by hand; a spread is that of the draw."""

from pathlib import Path

import numpy as np
import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.spec.scenario import ClusterChoice, SlowDevices
from moesim.study.device_speeds import device_speeds, slowness
from moesim.study.outcome import Outcome
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate


def _outcome(folder: Path, cluster: str = "", parallel: str = "{ep: 8}") -> Outcome:
    file = folder / "speeds.yaml"
    file.write_text(
        f"model: olmoe-1b-7b\ncluster: {{profile: dgx-h100, devices: 16{cluster}}}\n"
        f"parallel: {parallel}\ntraining: {{sequence_length: 4096, global_batch: 32}}\n",
        encoding="utf-8",
    )
    return simulate(resolve(load_scenario(file)))


def _seconds(outcome: Outcome, kind: str) -> float:
    return sum(share.seconds for share in outcome.breakdown if share.kind == kind)


def test_one_device_at_half_speed_doubles_all_compute(tmp_path: Path) -> None:
    alike = _outcome(tmp_path)
    slow = _outcome(tmp_path, ", slow: {devices: 1, speed: 0.5}")
    assert _seconds(slow, "compute") == pytest.approx(2 * _seconds(alike, "compute"), rel=1e-9)
    other = _seconds(alike, "exposed") - _seconds(slow, "exposed")
    assert other == pytest.approx(0.0, abs=0.1 * _seconds(alike, "exposed"))


def test_a_slow_stage_is_the_bottleneck_of_its_pipeline(tmp_path: Path) -> None:
    """A pipeline takes four micro-batches of its slowest stage, and at most one of the other."""
    alike = _outcome(tmp_path, "", "{pp: 2, ep: 8}")
    slow = _outcome(tmp_path, ", slow: {devices: 1, speed: 0.5}", "{pp: 2, ep: 8}")
    assert slow.run.micro_batches == 4
    each = [stage.forward[0].seconds + stage.backward[0].seconds for stage in slow.stages]
    unslowed = [stage.forward[0].seconds + stage.backward[0].seconds for stage in alike.stages]
    assert sum(one > other for one, other in zip(each, unslowed, strict=True)) == 1
    update_s = max(stage.update_s for stage in slow.stages)
    assert 4 * max(each) + update_s < slow.metrics.step_s < 4 * max(each) + min(each) + update_s
    assert slow.metrics.bubble_fraction > alike.metrics.bubble_fraction


def test_speeds_have_the_spread_asked_for() -> None:
    """100,000 draws: the standard error of the deviation is 1/sqrt(2 n), 0.22 %."""
    cluster = ClusterChoice(profile="any", devices=100_000, speed_spread=0.05)
    logs = np.log(device_speeds(cluster, 3))
    assert logs.std() == pytest.approx(0.05, rel=0.01)
    assert abs(logs.mean()) < 3 * 0.05 / 100_000**0.5


def test_as_many_slow_devices_as_asked_for() -> None:
    cluster = ClusterChoice(profile="any", devices=512, slow=SlowDevices(devices=7, speed=0.8))
    speeds = device_speeds(cluster, 0)
    assert (speeds == 0.8).sum() == 7
    assert (speeds == 1.0).sum() == 505


@pytest.mark.parametrize(
    ("order", "stages"),
    [
        ("tp-cp-ep-dp-pp", [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15]]),
        ("tp-cp-ep-pp-dp", [[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]),
        ("pp-tp-cp-ep-dp", [[0, 2, 4, 6, 8, 10, 12, 14], [1, 3, 5, 7, 9, 11, 13, 15]]),
    ],
)
def test_a_slow_device_holds_up_the_stage_that_it_is_placed_in(
    tmp_path: Path, order: str, stages: list[list[int]]
) -> None:
    """16 ranks, tp 2 and pp 2, numbered by hand: the slowest of each stage's ranks counts."""
    parallel = f"{{pp: 2, tp: 2, ep: 2, etp: 1, rank_order: {order}}}"
    run = _outcome(tmp_path, ", speed_spread: 0.1", parallel).run
    speeds = device_speeds(run.scenario.cluster, run.scenario.seed)
    by_hand = [1 / min(speeds[rank] for rank in ranks) for ranks in stages]
    found = slowness(run.scenario.cluster, run.scenario.seed, run.layout)
    assert found == pytest.approx(by_hand, rel=1e-12)


def test_more_slow_devices_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"slow\.devices 17 are more than 16"):
        _outcome(tmp_path, ", slow: {devices: 17, speed: 0.5}")
