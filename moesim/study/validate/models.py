"""From the model that a case names to an architecture: the file's own description goes first."""

from collections.abc import Mapping
from typing import Any

from moesim.errors import ScenarioError
from moesim.model.architecture import Architecture
from moesim.model.from_spec import architecture_from_spec
from moesim.model.named import load_named
from moesim.spec.cases import Case, CaseFile, Words
from moesim.spec.model import ModelSpec
from moesim.spec.validate import build
from moesim.spec.yaml_text import Document
from moesim.study.validate.skipped import SkippedError

_OVERRIDDEN = {"heads": ("attn", "heads"), "kv_heads": ("attn", "kv_heads")}
"""Overrides of a case that stand inside a part of the model."""


def architecture(case: Case, file: CaseFile) -> Architecture:
    """Return the network of `case`.

    Raises SkippedError where the file does not describe it and no named model is meant.
    """
    name = case.text("model")
    described = file.models.get(name)
    overrides = case.part("model_overrides")
    if described is None or "layers" not in described:
        return _named(name, overrides)
    try:
        data = described_model(name, _overridden(described, overrides))
        return architecture_from_spec(build(ModelSpec, Document(data)))
    except ScenarioError as error:
        raise SkippedError(
            f"model {name}: {error.problems[0].path}: {error.problems[0].message}"
        ) from None


def _named(name: str, overrides: Words) -> Architecture:
    if overrides:
        raise SkippedError(f"model {name} is not described in the file, so it cannot be changed")
    try:
        return load_named(name)
    except ScenarioError as error:
        raise SkippedError(f"model: {error.problems[0].message}") from None


def _overridden(described: Words, overrides: Words) -> dict[str, Any]:
    data = {key: dict(one) if isinstance(one, Mapping) else one for key, one in described.items()}
    for name, value in overrides.items():
        *outer, last = _OVERRIDDEN.get(name, (name,))
        place = data
        for part in outer:
            if not isinstance(place.setdefault(part, {}), dict):
                raise SkippedError(f"{name} cannot be changed: the model's {part} is no mapping")
            place = place[part]
        as_many = name == "heads" and place.get("kv_heads") == place.get("heads")
        place[last] = value
        if as_many and "kv_heads" in place:
            place["kv_heads"] = value
    return data


def _whole(words: Words, name: str, *, least: int = 1) -> int:
    value = words.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        said = f"not '{value}'" if name in words else "which is not there"
        raise SkippedError(f"the model needs {name} as a whole number from {least} on, {said}")
    return value


def described_model(name: str, words: Words) -> dict[str, Any]:
    """Return a model in the words of a case file as one in moesim's own YAML."""
    layers = _whole(words, "layers")
    data: dict[str, Any] = {
        "name": name,
        "source": str(words.get("src", "a case file"))[:2000],
        "hidden": words.get("hidden"),
        "vocab": words.get("vocab") or 1,
        "layers": layers,
        "attention": _attention(words),
        "tied_embeddings": bool(words.get("tied_embeddings", False)),
        "mtp_layers": words.get("mtp", 0),
    }
    if words.get("encoder_decoder"):
        data["encoder_layers"] = layers
    return data | _ffn(words, layers)


def _attention(words: Words) -> dict[str, Any]:
    attn = words.get("attn")
    if not isinstance(attn, Mapping):
        heads = _whole(words, "hidden", least=128) // 128
        return {"kind": "gqa", "heads": heads, "kv_heads": heads, "head_dim": 128}
    if attn.get("type") == "mla":
        return {
            "kind": "mla",
            "heads": _whole(attn, "heads"),
            "q_lora_rank": attn.get("q_lora"),
            "kv_lora_rank": _whole(attn, "kv_lora"),
            "qk_nope_head_dim": _whole(attn, "qk_nope", least=0),
            "qk_rope_head_dim": _whole(attn, "qk_rope", least=0),
            "v_head_dim": _whole(attn, "v_dim"),
        }
    heads = _whole(attn, "heads")
    return {
        "kind": "gqa",
        "heads": heads,
        "kv_heads": attn.get("kv_heads", heads),
        "head_dim": attn.get("head_dim") or _whole(words, "hidden") // heads,
    }


def _ffn(words: Words, layers: int) -> dict[str, Any]:
    dense = {"width": words.get("dense_ffn"), "gated": bool(words.get("gated", True))}
    if not words.get("experts"):
        return {"ffn": dense}
    numbers = {"dense_first_layers": 0, "moe_every": 1, **words}
    first, every = _whole(numbers, "dense_first_layers", least=0), _whole(numbers, "moe_every")
    data: dict[str, Any] = {
        "moe": {
            "num_experts": _whole(words, "experts"),
            "top_k": _whole(words, "top_k"),
            "expert_width": _whole(words, "expert_ffn"),
            "gated": dense["gated"],
            "shared_expert_width": words.get("shared_expert_ffn", 0) or 0,
        },
        "dense_first_layers": min(first, max(0, layers - 1)),
        "moe_every": every,
    }
    if data["dense_first_layers"] or every > 1:
        data["ffn"] = dense
    return data
