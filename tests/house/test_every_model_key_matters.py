"""H9 for models: each key of moesim's own model format changes a result, or an error names it."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from moesim.errors import MoesimError, ScenarioError
from moesim.spec.load import load_scenario
from moesim.spec.model import ModelSpec
from moesim.study.run import run
from tests.house.test_every_key_matters import leaves

GQA = {"kind": "gqa", "heads": 8, "kv_heads": 4, "head_dim": 16}
MLA = {
    "kind": "mla", "heads": 8, "q_lora_rank": 64, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8, "v_head_dim": 16, "indexer": {"heads": 4, "head_dim": 16, "top_k": 32},
}  # fmt: skip
LINEAR = {
    "kind": "linear", "key_heads": 4, "value_heads": 8, "key_head_dim": 16, "value_head_dim": 16,
    "conv_kernel": 4,
}  # fmt: skip
MOE = {
    "num_experts": 16, "top_k": 4, "expert_width": 256, "shared_expert_width": 256, "groups": 4,
    "groups_per_token": 2,
}  # fmt: skip
BASE: dict[str, Any] = {
    "name": "m", "source": "a test", "hidden": 256, "vocab": 1024, "layers": 8, "moe": MOE,
    "dense_first_layers": 2, "ffn": {"width": 512},
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "gqa": {**BASE, "attention": GQA, "second_attention": {"every": 4, "attention": LINEAR}},
    "mla": {**BASE, "attention": MLA},
    "linear": {**BASE, "attention": LINEAR, "second_attention": {"every": 4, "attention": GQA}},
    "two stacks": {**BASE, "attention": GQA, "encoder_layers": 8},
}


class Change(NamedTuple):
    """Another value for a key, and the model in which it must matter."""

    value: Any
    model: str = "gqa"


GQA_CHANGES: dict[str, Any] = {
    "kind": "mla",
    "heads": 16,
    "kv_heads": 8,
    "head_dim": 32,
    "qkv_bias": True,
    "output_bias": True,
    "qk_norm": "per_head",
    "window": 16,
    "sinks": True,
    "output_gate": True,
    "shared_key_value": True,
}
MLA_CHANGES: dict[str, Any] = {
    "q_lora_rank": 128,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "bias": True,
    "indexer.heads": 8,
    "indexer.head_dim": 32,
    "indexer.top_k": 8,
}
LINEAR_CHANGES: dict[str, Any] = {
    "key_heads": 8,
    "value_heads": 16,
    "key_head_dim": 32,
    "value_head_dim": 32,
    "conv_kernel": 2,
    "rule": "lightning",
}
CHANGES: dict[str, Change] = {
    "hidden": Change(512),
    "vocab": Change(2048),
    "layers": Change(12),
    **{f"attention.{key}": Change(value, "gqa") for key, value in GQA_CHANGES.items()},
    **{f"attention.{key}": Change(value, "mla") for key, value in MLA_CHANGES.items()},
    **{f"attention.{key}": Change(value, "linear") for key, value in LINEAR_CHANGES.items()},
    "second_attention.every": Change(2),
    "encoder_layers": Change(4, "two stacks"),
    "moe.num_experts": Change(32),
    "moe.top_k": Change(2),
    "moe.expert_width": Change(512),
    "moe.gated": Change(False),
    "moe.expert_bias": Change(True),
    "moe.router_bias": Change(True),
    "moe.shared_expert_width": Change(512),
    "moe.shared_expert_gate": Change(True),
    "moe.parallel_dense_width": Change(256),
    "moe.groups": Change(2),
    "moe.groups_per_token": Change(3),
    "moe.group_best": Change(1),
    "moe.capacity_factor": Change(1.25),
    "moe.extra_params": Change(10**9),
    "dense_first_layers": Change(1),
    "moe_every": Change(2),
    "ffn.width": Change(1024),
    "ffn.gated": Change(False),
    "ffn.bias": Change(True),
    "norm": Change("layer"),
    "norms_per_layer": Change(4),
    "tied_embeddings": Change(True),
    "lm_head_bias": Change(True),
    "learned_positions": Change(1024),
    "relative_position_buckets": Change(32),
    "mtp_layers": Change(1),
}
NO_USE_YET: Mapping[str, str] = {
    "weight_dtype": "training keeps weights in its own precision; serving reads them as stored",
}
"""Keys without effect on training, and why; a key that gains one must move to CHANGES."""

PROSE = {"name", "source"}


def test_every_key_of_a_model_has_a_change_here() -> None:
    keys = {key for key in leaves(ModelSpec) if not key.startswith("second_attention.attention.")}
    assert keys == set(CHANGES) | set(NO_USE_YET) | PROSE


def outcome(folder: Path, model: dict[str, Any]) -> Any:
    """Return what a training run of `model` comes to, or the keys that its error names."""
    training = {"sequence_length": 64, "global_batch": 32}
    if model.get("encoder_layers"):
        training["target_length"] = 32
    scenario = {
        "model": "model.yaml",
        "cluster": {"profile": "dgx-h100", "devices": 32},
        "parallel": {"ep": 16, "dispatcher": "deepep"},
        "training": training,
    }
    (folder / "model.yaml").write_text(json.dumps(model), encoding="utf-8")
    (folder / "run.yaml").write_text(json.dumps(scenario), encoding="utf-8")
    try:
        result = run(load_scenario(folder / "run.yaml"))
    except ScenarioError as error:
        return [problem.path for problem in error.problems]
    except MoesimError as error:
        return [str(error)]
    ours = result.summary()["model"]
    params = [ours["total_params"], ours["active_params"]]
    figures = [ours["metrics"], ours["memory"], ours["breakdown"], ours["routing"]]
    return {"figures": [params, figures], "said": result.summary()["assumptions"]}


def changed(model: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    copy = deepcopy(model)
    *outer, last = path.split(".")
    node = copy
    for part in outer:
        node = node[part]
    node[last] = value
    return copy


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_of_a_model_changes_the_result(tmp_path: Path, key: str) -> None:
    change = CHANGES[key]
    model = MODELS[change.model]
    before = outcome(tmp_path, model)
    after = outcome(tmp_path, changed(model, key, change.value))
    assert isinstance(before, dict), f"the base itself is an error about {before}"
    if isinstance(after, dict):
        assert after != before
    else:
        assert all(path.startswith(key.rpartition(".")[0]) for path in after)


@pytest.mark.parametrize("key", NO_USE_YET)
def test_a_key_without_use_is_still_without_use(tmp_path: Path, key: str) -> None:
    assert key == "weight_dtype"
    before = outcome(tmp_path, MODELS["gqa"])
    assert outcome(tmp_path, changed(MODELS["gqa"], key, "fp8")) == before


@pytest.mark.parametrize("key", sorted(PROSE))
def test_prose_of_a_model_is_shown(tmp_path: Path, key: str) -> None:
    outcome(tmp_path, {**MODELS["gqa"], key: "A marker of mine"})
    result = run(load_scenario(tmp_path / "run.yaml"))
    assert result.summary()["model"][key] == "A marker of mine"
