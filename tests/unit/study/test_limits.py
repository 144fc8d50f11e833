"""What is too much to simulate is refused before it is tried, and what is just possible is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.resolve import resolve

MODEL: dict[str, Any] = {
    "name": "m", "source": "a test", "hidden": 64, "vocab": 64, "layers": 8,
    "attention": {"kind": "gqa", "heads": 8, "kv_heads": 8, "head_dim": 8},
    "moe": {"num_experts": 8, "top_k": 2, "expert_width": 64},
}  # fmt: skip
SCENARIO = {
    "model": "model.yaml",
    "cluster": {"profile": "dgx-h100", "devices": 8},
    "parallel": {"pp": 8},
    "training": {"sequence_length": 8, "global_batch": 8},
}


def error(folder: Path, *settings: str, **model: Any) -> str:
    """Return the message about a scenario, or an empty text where it is accepted."""
    (folder / "model.yaml").write_text(json.dumps({**MODEL, **model}), encoding="utf-8")
    (folder / "s.yaml").write_text(json.dumps(SCENARIO), encoding="utf-8")
    try:
        resolve(load_scenario(folder / "s.yaml", settings))
    except ScenarioError as problem:
        return str(problem)
    return ""


def experts(number: int) -> dict[str, Any]:
    return {**MODEL["moe"], "num_experts": number}


RANDOM = "routing.load.law=uniform"


@pytest.mark.parametrize(
    ("just", "over", "says"),
    [
        # 2 passes * 62,500 micro-batches * 8 stages = 10^6
        (
            ["training.global_batch=62500"],
            ["training.global_batch=62501"],
            "training.global_batch: makes 62,501 micro-batches, so 1,000,016 forward and backward",
        ),
        # 10^9 tokens = 1000 sequences of 10^6
        (
            ["training={sequence_length: 1000000, micro_batch: 1000, global_batch: 1000}"],
            ["training={sequence_length: 1000000, micro_batch: 1001, global_batch: 1001}"],
            "micro_batch * sequence_length is 1,001,000,000 tokens; at most 1,000,000,000",
        ),
        # 2 * 8 micro-batches * 8 stages = 128 passes; 128 * 78,125 steps = 10^7
        (
            [RANDOM, "training.global_batch=125", "training.steps=5000"],
            [RANDOM, "training.global_batch=125", "training.steps=5001"],
            "training.steps: 5,001 steps of 2,000 passes of stages are more than the 10,000,000",
        ),
        # a capacity counts over 2^22 tokens at most, here 1024 sequences of 4096
        (
            [RANDOM, "routing.capacity={factor: 1, group_tokens: 4194304}",
             "training={sequence_length: 4096, micro_batch: 2048, global_batch: 2048}"],
            [RANDOM, "routing.capacity={factor: 1, group_tokens: 4194305}",
             "training={sequence_length: 4096, micro_batch: 2048, global_batch: 2048}"],
            "routing.capacity.group_tokens: 4,194,305 tokens are routed together; at most",
        ),
        # 8 layers * 1000 groups of one token * 125 steps = 10^6
        (
            [RANDOM, "routing.capacity={factor: 1, group_tokens: 1}", "training.steps=125",
             "training.sequence_length=1000"],
            [RANDOM, "routing.capacity={factor: 1, group_tokens: 1}", "training.steps=126",
             "training.sequence_length=1000"],
            "routing.capacity.group_tokens: 1,008,000 groups of tokens would be routed",
        ),
    ],
)  # fmt: skip
def test_batches_and_steps_have_limits(
    tmp_path: Path, just: list[str], over: list[str], says: str
) -> None:
    assert error(tmp_path, *just) == ""
    assert says in error(tmp_path, *over)


@pytest.mark.parametrize(
    ("just", "over", "says"),
    [
        ({"layers": 2000}, {"layers": 2001}, "model: has 2,001 layers; at most 2,000"),
        (
            {"layers": 8, "moe": experts(65_536)},
            {"layers": 8, "moe": experts(65_537)},
            "model: has more than 65,536 experts in a layer",
        ),
        (
            {"layers": 64, "moe": experts(65_536)},
            {"layers": 65, "moe": experts(65_536)},
            "model: has more than 4,194,304 experts in all layers",
        ),
    ],
)
def test_models_have_limits(
    tmp_path: Path, just: dict[str, Any], over: dict[str, Any], says: str
) -> None:
    assert error(tmp_path, **just) == ""
    assert says in error(tmp_path, **over)
    assert error(tmp_path, **over).startswith(f"{tmp_path / 's.yaml'}:1:2: model: ")


def test_even_loads_are_simulated_once_whatever_the_steps(tmp_path: Path) -> None:
    assert error(tmp_path, "training.global_batch=62500", "training.steps=10000") == ""
    assert error(tmp_path, RANDOM, "training.global_batch=62500", "training.steps=11") != ""


def test_oversubscription_needs_to_know_the_leaves(tmp_path: Path) -> None:
    assert error(tmp_path, "cluster.oversubscription=2") == ""
    wrong = error(tmp_path, "cluster.profile=aws-p5", "cluster.oversubscription=2")
    assert "cluster.oversubscription: the profile of aws-p5 does not say how many devices" in wrong


def test_devices_of_a_domain_are_whole_nodes_or_parts_of_one(tmp_path: Path) -> None:
    assert error(tmp_path, "cluster.devices_per_domain=4") == ""
    for wrong in (3, 16):  # a node of eight is the whole domain
        found = error(tmp_path, f"cluster.devices_per_domain={wrong}")
        assert "cluster.devices_per_domain: a scale-up domain of dgx-h100 is 8 devices" in found
    torus = error(tmp_path, "cluster.profile=tpu-v5p-pod", "cluster.devices_per_domain=4")
    assert "is a torus, which is used whole" in torus
