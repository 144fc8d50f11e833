"""Host times of an engine's software profile: each changes a run, by as much as it says."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from moesim.spec.load import load_serving
from moesim.spec.shipped import shipped
from moesim.study.serving.metrics import Metrics
from moesim.study.serving.resolve import resolve
from moesim.study.serving.simulate import simulate

KEYS = ("host_per_iteration", "host_per_sequence", "host_per_request")
PROMPT, OUTPUT, IN_FLIGHT = 64, 17, 4


def run(folder: Path, *, hidden: bool = False, **host: str) -> Metrics:
    """Return the metrics of requests of llama-3.1-8b, four at a time, under these host times."""
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
            "engine": {"name": "vllm", "async_scheduling": hidden},
            "workload": {
                "arrivals": "at_once", "requests": IN_FLIGHT,
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


def test_each_sequence_of_an_iteration_adds_to_every_token(tmp_path: Path) -> None:
    """All four prompts are computed together, and then decode together."""
    before, after = run(tmp_path), run(tmp_path, host_per_sequence="100 us")
    assert after.ttft_s.mean - before.ttft_s.mean == pytest.approx(4e-4, rel=1e-6)
    assert after.tpot_s.mean - before.tpot_s.mean == pytest.approx(4e-4, rel=1e-6)


def test_a_host_that_prepares_ahead_is_hidden_until_it_is_the_slower_one(tmp_path: Path) -> None:
    """Reading 15 GB of weights takes 5 ms: 4 sequences of 1 ms are hidden, of 10 ms are not."""
    before = run(tmp_path)
    hidden = run(tmp_path, hidden=True, host_per_sequence="1 ms")
    assert hidden.tpot_s.mean == pytest.approx(before.tpot_s.mean, rel=1e-9)
    slow = run(tmp_path, hidden=True, host_per_sequence="10 ms", host_per_iteration="2 ms")
    assert slow.tpot_s.mean == pytest.approx(42e-3, rel=1e-9)


def test_a_request_adds_to_its_first_token_alone(tmp_path: Path) -> None:
    before, after = run(tmp_path), run(tmp_path, host_per_request="20 ms")
    assert after.ttft_s.mean - before.ttft_s.mean == pytest.approx(20e-3, rel=1e-6)
    assert after.tpot_s.mean == pytest.approx(before.tpot_s.mean, rel=1e-9)
