"""The schema of a model: what it says about mistakes, and what its keys do."""

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from moesim.errors import ScenarioError
from moesim.model.architecture import (
    Architecture,
    DenseFfn,
    GroupedQueryAttention,
    LatentAttention,
    MoeFfn,
    layers_of,
)
from moesim.model.from_spec import architecture_from_spec
from moesim.spec.model import ModelSpec
from moesim.spec.validate import build
from moesim.spec.yaml_text import read_yaml

TEXT = """\
name: small
source: a test
hidden: 16
vocab: 100
layers: 8
attention:
  kind: gqa
  heads: 4
  kv_heads: 2
  head_dim: 4
moe:
  num_experts: 8
  top_k: 2
  expert_width: 32
"""
LATENT = {
    "kind": "mla",
    "heads": 4,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 2,
    "v_head_dim": 4,
}
LINEAR = {
    "kind": "linear",
    "key_heads": 2,
    "value_heads": 4,
    "key_head_dim": 4,
    "value_head_dim": 4,
    "conv_kernel": 4,
}


def _data(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = copy.deepcopy(read_yaml(TEXT, "small.yaml").data)
    for key, value in changes.items():
        part, _, last = key.rpartition("__")
        target = data[part] if part else data
        target[last] = value
    return data


def _built(**changes: Any) -> Architecture:
    return architecture_from_spec(ModelSpec.model_validate(_data(**changes)))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("top_k: 2", "top_k: 9", "m.yaml:13:3: moe.top_k: must be at most num_experts, 8"),
        ("kv_heads: 2", "kv_heads: 3", "m.yaml:9:3: attention.kv_heads: 3 does not divide"),
        ("heads: 4", "heads: 0", "m.yaml:8:3: attention.heads: must be at least 1"),
        ("hidden: 16", "hidden: wide", "m.yaml:3:1: hidden: must be a whole number"),
        ("vocab: 100", "vocab: 100\nmoe_evry: 2", "unknown key. Did you mean 'moe_every'?"),
        ("kind: gqa", "kind: mha", "attention.kind: must be one of 'gqa', 'mla', 'linear'"),
        ("vocab: 100", "vocab: 100\nmoe_every: 9", "leaves no layer with experts among 8"),
        ("vocab: 100", "vocab: 100\ndense_first_layers: 8", "leaves no layer with experts"),
        ("vocab: 100", "vocab: 100\nmoe_every: 2", "ffn: some layers have no experts"),
        ("vocab: 100", "vocab: 100\nffn: {width: 4}", "m.yaml:5:1: ffn: no layer uses it"),
        ("  top_k: 2", "  top_k: 2\n  groups: 3", "moe.groups: 3 groups do not divide the 8"),
        ("  top_k: 2", "  top_k: 2\n  groups_per_token: 2", "must be at most groups, 1"),
        ("  top_k: 2", "  top_k: 2\n  groups: 8", "1 groups hold 1 experts, fewer than top_k, 2"),
        ("  top_k: 2", "  top_k: 2\n  shared_expert_gate: true", "no shared expert to gate"),
        ("  top_k: 2", "  top_k: 2\n  capacity_factor: 0", "must be above 0"),
        ("layers: 8", "layers: 100000", "must be at most 10000"),
    ],
)
def test_mistakes_are_told_with_their_place(before: str, after: str, said: str) -> None:
    text = TEXT.replace(before, after, 1)
    with pytest.raises(ScenarioError) as caught:
        build(ModelSpec, read_yaml(text, "m.yaml"))
    assert said in str(caught.value)
    assert str(caught.value).startswith("m.yaml:")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"moe": None}, "give ffn, moe or both"),
        ({"moe": None, "moe_every": 2, "ffn": {"width": 8}}, "there are none: give moe"),
        ({"attention": LATENT, "encoder_layers": 2}, "an encoder needs attention of kind gqa"),
        (
            {"second_attention": {"every": 2, "attention": LATENT}, "encoder_layers": 2},
            "an encoder needs attention of kind gqa",
        ),
        ({"second_attention": {"every": 9, "attention": LATENT}}, "no layer has it: there are 8"),
        ({"attention": {**LINEAR, "value_heads": 3}}, "3 is not a multiple of the 2 key heads"),
        ({"attention": LINEAR, "relative_position_buckets": 4}, "has no relative positions"),
        (
            {"attention": {**LATENT, "indexer": {"heads": 1, "head_dim": 4, "top_k": 2}}},
            "give q_lora_rank too",
        ),
    ],
)
def test_contradictions(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelSpec.model_validate(_data(**changes))


def test_every_key_changes_the_architecture() -> None:
    """A key that changes nothing would be a promise that moesim does not keep."""
    mixed = {"moe_every": 2, "ffn": {"width": 8}}
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"name": "other"}),
        ({}, {"source": "elsewhere"}),
        ({}, {"hidden": 32}),
        ({}, {"vocab": 101}),
        ({}, {"layers": 9}),
        ({}, {"attention": LATENT}),
        ({}, {"second_attention": {"every": 2, "attention": LATENT}}),
        ({}, {"encoder_layers": 2}),
        (mixed, {**mixed, "moe_every": 4}),
        (mixed, {**mixed, "dense_first_layers": 2}),
        (mixed, {**mixed, "ffn": {"width": 9}}),
        (mixed, {**mixed, "ffn": {"width": 8, "gated": False}}),
        (mixed, {**mixed, "ffn": {"width": 8, "bias": True}}),
        ({}, {"norm": "layer"}),
        ({}, {"norms_per_layer": 4}),
        ({}, {"tied_embeddings": True}),
        ({}, {"lm_head_bias": True}),
        ({}, {"learned_positions": 5}),
        ({}, {"relative_position_buckets": 5}),
        ({}, {"mtp_layers": 1}),
        ({}, {"weight_dtype": "fp8"}),
        ({}, {"moe__num_experts": 16}),
        ({}, {"moe__top_k": 1}),
        ({}, {"moe__expert_width": 33}),
        ({}, {"moe__gated": False}),
        ({}, {"moe__expert_bias": True}),
        ({}, {"moe__router_bias": True}),
        ({}, {"moe__shared_expert_width": 3}),
        (
            {"moe__shared_expert_width": 3},
            {"moe__shared_expert_width": 3, "moe__shared_expert_gate": True},
        ),
        ({}, {"moe__parallel_dense_width": 3}),
        ({}, {"moe__groups": 2}),
        ({"moe__groups": 2}, {"moe__groups": 2, "moe__groups_per_token": 2}),
        ({}, {"moe__capacity_factor": 1.25}),
        ({}, {"moe__extra_params": 3}),
        ({}, {"attention__heads": 8}),
        ({}, {"attention__kv_heads": 4}),
        ({}, {"attention__head_dim": 8}),
        ({}, {"attention__qkv_bias": True}),
        ({}, {"attention__output_bias": True}),
        ({}, {"attention__qk_norm": "per_head"}),
        ({}, {"attention__window": 5}),
        ({}, {"attention__sinks": True}),
        ({}, {"attention__output_gate": True}),
        ({}, {"attention__shared_key_value": True}),
        ({"attention": LATENT}, {"attention": {**LATENT, "bias": True}}),
        ({"attention": LATENT}, {"attention": {**LATENT, "q_lora_rank": 4}}),
        ({"attention": LINEAR}, {"attention": {**LINEAR, "rule": "lightning"}}),
        ({"attention": LINEAR}, {"attention": {**LINEAR, "conv_kernel": 3}}),
    ]
    for base, changed in changes:
        assert _built(**base) != _built(**changed), changed
    tried = {key for _, changed in changes for key in changed}
    assert set(ModelSpec.model_fields) - {"moe"} <= tried


def test_the_last_of_every_n_layers_has_experts() -> None:
    architecture = _built(dense_first_layers=2, moe_every=3, ffn={"width": 8})
    with_experts = [isinstance(layer.ffn, MoeFfn) for layer in layers_of(architecture.decoder)]
    assert with_experts == [False, False, False, False, True, False, False, True]


def test_second_attention_is_in_every_nth_layer() -> None:
    architecture = _built(second_attention={"every": 3, "attention": LATENT})
    second = [isinstance(x.attention, LatentAttention) for x in layers_of(architecture.decoder)]
    assert second == [False, False, True, False, False, True, False, False]


def test_encoder_and_decoder() -> None:
    architecture = _built(encoder_layers=4, relative_position_buckets=32)
    first, second = list(layers_of(architecture.encoder))[:2]
    assert isinstance(first.attention, GroupedQueryAttention)
    assert not first.attention.causal
    assert first.cross_attention is None
    assert (first.extra_params, second.extra_params) == (32 * 4, 0)
    last = architecture.decoder[-1].layer
    assert isinstance(last.attention, GroupedQueryAttention)
    assert last.attention.causal
    assert last.cross_attention is not None
    assert not last.cross_attention.causal
    assert (first.norms, last.norms) == (2, 3)


def test_a_dense_model() -> None:
    architecture = _built(moe=None, ffn={"width": 8})
    assert not architecture.is_moe
    assert architecture.decoder[0].count == 8
    assert architecture.decoder[0].layer.ffn == DenseFfn(width=8)
