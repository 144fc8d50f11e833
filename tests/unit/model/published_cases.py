"""The published training measurements, each with the architecture that it was made with."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from ruamel.yaml import YAML

from moesim.model.architecture import Architecture
from moesim.model.from_spec import architecture_from_spec
from moesim.spec.model import ModelSpec
from tests.shared_files import shared

Entry = Mapping[str, Any]


@cache
def training_data() -> Entry:
    """Return published/training.yaml; skips the test where it is missing."""
    data: Entry = YAML(typ="safe").load(shared("published/training.yaml"))
    return data


def cases_with_flop() -> list[Entry]:
    """Return the cases for which the causal FLOP per token are known."""
    cases: list[Entry] = training_data()["cases"]
    return [case for case in cases if "gflop_per_token_causal" in case.get("derived", {})]


def architecture_of(case: Entry) -> Architecture:
    """Return the architecture of `case`: its model with the overrides of the case."""
    return architecture_from_spec(spec_of(case))


def spec_of(case: Entry) -> ModelSpec:
    """Return the model of `case` as a schema object; only models with attention have one."""
    entry = _overridden(training_data()["models"][case["model"]], case.get("model_overrides") or {})
    data = {
        "name": case["model"],
        "source": entry["src"][:2000],
        "hidden": entry["hidden"],
        "vocab": entry["vocab"],
        "layers": entry["layers"],
        "attention": _attention(entry["attn"]),
        "encoder_layers": entry["layers"] if entry.get("encoder_decoder") else 0,
        "mtp_layers": entry.get("mtp", 0),
        **_ffn(entry),
    }
    return ModelSpec.model_validate(data)


def _overridden(entry: Entry, overrides: Entry) -> Entry:
    """Apply overrides; heads stand inside `attn`, and multi-head attention stays multi-head."""
    result = {**entry, "attn": dict(entry.get("attn") or {})}
    for key, value in overrides.items():
        if key == "heads":
            if result["attn"].get("kv_heads") == result["attn"]["heads"]:
                result["attn"]["kv_heads"] = value
            result["attn"]["heads"] = value
        else:
            result[key] = value
    return result


def _attention(attn: Entry) -> Entry:
    if attn["type"] == "gqa":
        return {
            "kind": "gqa",
            "heads": attn["heads"],
            "kv_heads": attn["kv_heads"],
            "head_dim": attn["head_dim"],
        }
    return {
        "kind": "mla",
        "heads": attn["heads"],
        "q_lora_rank": attn.get("q_lora"),
        "kv_lora_rank": attn["kv_lora"],
        "qk_nope_head_dim": attn["qk_nope"],
        "qk_rope_head_dim": attn["qk_rope"],
        "v_head_dim": attn["v_dim"],
    }


def _ffn(entry: Entry) -> Entry:
    dense = {"width": entry["dense_ffn"], "gated": entry["gated"]}
    if entry["cls"] == "dense":
        return {"ffn": dense}
    first, every = entry.get("dense_first_layers", 0), entry.get("moe_every", 1)
    moe = {
        "num_experts": entry["experts"],
        "top_k": entry["top_k"],
        "expert_width": entry["expert_ffn"],
        "gated": entry["gated"],
        "shared_expert_width": entry.get("shared_expert_ffn", 0),
    }
    mixed = first > 0 or every > 1
    return {
        "moe": moe,
        "dense_first_layers": first,
        "moe_every": every,
        "ffn": dense if mixed else None,
    }
