"""From a Hugging Face id to an architecture: the catalogue first, then what the file says of it."""

import re
from collections.abc import Mapping
from typing import Any

from moesim.errors import ModelError, ScenarioError
from moesim.model.architecture import Architecture, MoeFfn, layers_of
from moesim.model.config_json import architecture_from
from moesim.model.named import load_named
from moesim.spec.cases import CaseFile
from moesim.study.validate.skipped import SkippedError

_ENDINGS = re.compile(
    r"-(instruct|chat|hf|it|base|fp8|fp4|nvfp4|awq|gptq|int4|bf16|mxfp4|\d{4}|v\d+(\.\d+)?|16e"
    r"|instruct-hf)$"
)
_SAME = {
    "deepseek-r1": "deepseek-v3", "deepseek-v3.1": "deepseek-v3", "glm-4.6": "glm-4.5",
    "llama-3.3-70b": "llama-3.1-70b", "meta-llama-3.1-405b": "llama-3.1-405b",
    "llama-4-scout-17b": "llama-4-scout", "llama2-70b": "llama-2-70b",
    "phi-mini-moe": "phi-mini-moe", "mixtral-8x7b-instruct": "mixtral-8x7b",
}  # fmt: skip
"""Names of the same networks: later training, same shape."""

_TYPES = (
    ("kv_lora_rank", "deepseek_v3"), ("num_experts", "qwen3_moe"), ("num_local_experts", "mixtral"),
)  # fmt: skip


def model_of(name: str, file: CaseFile) -> Architecture:
    """Return the network that an id names.

    Raises SkippedError where neither the catalogue nor the file knows it.
    """
    names = _shorter(name)
    for one in names:
        try:
            return load_named(_SAME.get(one, one))
        except ScenarioError:
            continue
    for known, words in file.models.items():
        if known == name or _shorter(known)[-1] == names[-1]:
            return _described(known, words)
    raise SkippedError(f"model {name[:80]}: neither in the catalogue nor described in the file")


def _shorter(name: str) -> list[str]:
    """Return an id without its owner, then without each ending that says how it was trained."""
    short = name.rpartition("/")[2].strip().casefold().partition(" (")[0].replace(" ", "-")
    found = [short]
    while (less := _ENDINGS.sub("", found[-1])) != found[-1] and less:
        found.append(less)
    return found


def _described(name: str, words: Mapping[str, Any]) -> Architecture:
    """Read the keys of a config.json that a file repeats; the family follows from the keys."""
    kind = next((one for key, one in _TYPES if words.get(key)), "llama")
    lower = name.casefold()
    if kind == "llama":
        kind = "qwen3" if "qwen3" in lower else "qwen2" if "qwen" in lower else kind
    defaults: dict[str, Any] = {"model_type": kind, "tie_word_embeddings": False}
    if kind == "qwen2":
        defaults |= {"use_sliding_window": False}
    try:
        return architecture_from(
            {**defaults, **words}, _shorter(name)[-1] or "model", f"models.{name}"
        )
    except ModelError as error:
        raise SkippedError(str(error)) from None


def class_of(architecture: Architecture) -> str:
    """Return moe or dense."""
    layers = layers_of(architecture.decoder)
    return "moe" if any(isinstance(one.ffn, MoeFfn) for one in layers) else "dense"
