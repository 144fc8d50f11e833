"""The shape of a slice in a scenario: where its groups lie, what that costs, what is impossible."""

from pathlib import Path

import pytest

from moesim.cost.collectives import collective_s, uniform_all_to_all_s
from moesim.cost.pricing import machine
from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.resolve import Training, resolve

TEXT = """
model: mixtral-8x7b
cluster: {profile: PROFILE, devices: DEVICES, slice: SHAPE}
software: maxtext
parallel: {ep: 8, fsdp: FSDP}
training: {sequence_length: 4096, global_batch: DEVICES}
"""


def _run(folder: Path, profile: str, devices: int, shape: str, fsdp: int = 1) -> Training:
    text = TEXT.replace("PROFILE", profile).replace("DEVICES", str(devices))
    file = folder / "slice.yaml"
    file.write_text(text.replace("SHAPE", shape).replace("FSDP", str(fsdp)), encoding="utf-8")
    return resolve(load_scenario(file))


def _all_to_all_s(run: Training) -> float:
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    return uniform_all_to_all_s(1e9, on.networks["ep"])


def test_all_to_all_follows_the_shape(tmp_path: Path) -> None:
    """Eight ranks of TPU v6e, 90 GB/s a link at 0.96: by the fullest link of the group.

    In a line of 8 the middle link carries 1 GB * 8 / 4, in 2 x 4 the longer axis 1 GB * 4 / 4; all
    round a ring of 8 on TPU v5p it is 1 GB * 8 / 8. Plus the latency of one step.
    """
    line = _all_to_all_s(_run(tmp_path, "tpu-v6e-pod", 16, "[2, 8]"))
    assert line == pytest.approx(2e9 / (0.96 * 90e9) + 2.29e-6)
    box = _all_to_all_s(_run(tmp_path, "tpu-v6e-pod", 16, "[4, 4]"))
    assert box == pytest.approx(1e9 / (0.96 * 90e9) + 2.29e-6)
    run = _run(tmp_path, "tpu-v5p-pod", 128, "[4, 4, 8]")
    ring = _all_to_all_s(run)
    latency_s = run.cluster.topology.scale_up.latency_s
    assert ring == pytest.approx(1e9 / (0.96 * 90e9) + latency_s)


def test_gathers_over_a_whole_pod_use_every_link(tmp_path: Path) -> None:
    """16 x 16 rings: 255/256 of 1 GB arrive over four links; 15 steps along each axis.

    An all-reduce scatters and gathers: twice that.
    """
    run = _run(tmp_path, "tpu-v6e-pod", 256, "[16, 16]", fsdp=256)
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    once = 1e9 * 255 / 256 / (4 * 0.96 * 90e9) + 30 * 2.29e-6
    assert collective_s("all_gather", 1e9, on.networks["fsdp"]) == pytest.approx(once)
    assert collective_s("all_reduce", 1e9, on.networks["fsdp"]) == pytest.approx(2 * once)


@pytest.mark.parametrize(
    ("profile", "shape", "says"),
    [
        ("tpu-v6e-pod", "[2, 2, 4]", "slice.yaml:3:.*cluster.slice: .* has 2 axes, not 3"),
        ("tpu-v6e-pod", "[1, 32]", "cluster.slice: no slice is longer or wider .* 16x16"),
        ("tpu-v6e-pod", "[3, 8]", "cluster.slice: 16 devices are no whole number of slices of 24"),
        ("dgx-h100", "[4, 4]", "cluster.slice: the scale-up network of dgx-h100 is no torus"),
    ],
)
def test_impossible_slices_are_named(tmp_path: Path, profile: str, shape: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        _run(tmp_path, profile, 16, shape)
