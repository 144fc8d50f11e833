"""Host times of an engine's software profile: each changes a run, by as much as it says."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from moesim.spec.load import load_serving
from moesim.spec.shipped import shipped
from moesim.study.serving.metrics import Metrics
from moesim.study.serving.resolve import resolve
from moesim.study.serving.simulate import simulate

KEYS = ("host_per_iteration", "host_per_layer", "host_per_request")
LAYERS, PROMPT, OUTPUT = 32, 64, 17


def run(folder: Path, **host: str) -> Metrics:
    """Return the metrics of requests of llama-3.1-8b, one at a time, under these host times."""
    yaml = YAML(typ="safe", pure=True)
    profile = yaml.load(shipped("hwprofiles") / "software" / "vllm.yaml")
    for key in KEYS:
        profile[key] = {"value": host.get(key, "0 us"), "source": "a test", "kind": "assumed"}
    yaml.dump(profile, folder / "software.yaml")
    scenario = {
        "model": "llama-3.1-8b",
        "cluster": {"profile": "dgx-h100", "devices": 1},
        "software": str(folder / "software.yaml"),
        "serving": {
            "engine": {"name": "vllm"},
            "workload": {
                "arrivals": "closed", "in_flight": 1, "requests": 4,
                "prompt": PROMPT, "output": OUTPUT,
            },
        },
    }  # fmt: skip
    yaml.dump(scenario, folder / "scenario.yaml")
    return simulate(resolve(load_serving(folder / "scenario.yaml"))).metrics


def test_an_iteration_adds_to_every_token(tmp_path: Path) -> None:
    before, after = run(tmp_path), run(tmp_path, host_per_iteration="1 ms")
    assert after.ttft_s.mean - before.ttft_s.mean == pytest.approx(1e-3, rel=1e-6)
    assert after.tpot_s.mean - before.tpot_s.mean == pytest.approx(1e-3, rel=1e-6)


def test_launching_layers_bounds_prompts_alone(tmp_path: Path) -> None:
    """32 layers of 10 ms are far above what the device needs; its attention comes on top."""
    before, after = run(tmp_path), run(tmp_path, host_per_layer="10 ms")
    assert 10e-3 * LAYERS < after.ttft_s.mean < 10e-3 * LAYERS + before.ttft_s.mean
    assert after.tpot_s.mean == pytest.approx(before.tpot_s.mean, rel=1e-9)


def test_a_request_adds_to_its_first_token_alone(tmp_path: Path) -> None:
    before, after = run(tmp_path), run(tmp_path, host_per_request="20 ms")
    assert after.ttft_s.mean - before.ttft_s.mean == pytest.approx(20e-3, rel=1e-6)
    assert after.tpot_s.mean == pytest.approx(before.tpot_s.mean, rel=1e-9)
