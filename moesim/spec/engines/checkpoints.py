"""Checkpoints on Hugging Face: which model of the catalogue, and in which number formats.

Names, families and formats of published weights are from memory, unchecked; a suffix (-FP8, -NVFP4,
-AWQ, -GPTQ-Int4, ...) says the format of a quantised copy, whoever made it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_EMPTY: Mapping[str, str] = MappingProxyType({})
_BLOCKS = MappingProxyType({"weights": "fp8_block128"})
_MXFP4 = MappingProxyType({"experts": "w4a16_mxfp4"})

FAMILIES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    (r"snowflake-arctic(-base|-instruct)?", "arctic", _EMPTY),
    (r"dbrx-(base|instruct)", "dbrx", _EMPTY),
    (r"deepseek-moe-16b-(base|chat)", "deepseek-moe-16b", _EMPTY),
    (r"DeepSeek-(Coder-)?V2-Lite(-Base|-Chat|-Instruct)?", "deepseek-v2-lite", _EMPTY),
    (r"DeepSeek-(Coder-)?V2(\.5)?(-Base|-Chat|-Instruct|-1210)?", "deepseek-v2", _EMPTY),
    (r"DeepSeek-V3\.2(-Exp|-Exp-Base|-Speciale)?", "deepseek-v3.2", _BLOCKS),
    (r"DeepSeek-(V3(\.1)?(-Base|-0324|-Terminus)?|R1(-0528|-Zero)?)", "deepseek-v3", _BLOCKS),
    (r"GLM-4\.5-Air(-Base)?", "glm-4.5-air", _EMPTY),
    (r"GLM-4\.5(-Base)?", "glm-4.5", _EMPTY),
    (r"GLM-5", "glm-5", _EMPTY),
    (r"gpt-oss-(?:safeguard-)?120b", "gpt-oss-120b", _MXFP4),
    (r"gpt-oss-(?:safeguard-)?20b", "gpt-oss-20b", _MXFP4),
    (r"grok-1(-hf)?", "grok-1", _EMPTY),
    (r"Kimi-K2-(Base|Instruct(-0905)?)", "kimi-k2", _BLOCKS),
    (r"Kimi-K2-Thinking", "kimi-k2", MappingProxyType({"experts": "int4_weight_only"})),
    (r"Llama-2-70b(-chat)?(-hf)?", "llama-2-70b", _EMPTY),
    (r"Llama-2-7b(-chat)?(-hf)?", "llama-2-7b", _EMPTY),
    (r"(Meta-)?Llama-3\.1-405B(-Instruct)?", "llama-3.1-405b", _EMPTY),
    (r"(Meta-)?Llama-3(\.[13])?-70B(-Instruct)?", "llama-3.1-70b", _EMPTY),
    (r"(Meta-)?Llama-3(\.1)?-8B(-Instruct)?", "llama-3.1-8b", _EMPTY),
    (r"Llama-4-Maverick-17B-128E(-Instruct)?", "llama-4-maverick", _EMPTY),
    (r"Llama-4-Scout-17B-16E(-Instruct)?", "llama-4-scout", _EMPTY),
    (r"MiniMax-M2(\.[15])?", "minimax-m2.5", _BLOCKS),
    (r"Mistral-7B-v0\.1|Mistral-7B-Instruct-v0\.[12]", "mistral-7b", _EMPTY),
    (r"Mixtral-8x22B(-Instruct)?-v0\.1", "mixtral-8x22b", _EMPTY),
    (r"Mixtral-8x7B(-Instruct)?-v0\.1", "mixtral-8x7b", _EMPTY),
    (r"mpt-7b(-chat|-instruct)?", "mpt-7b", _EMPTY),
    (r"mpt-30b(-chat|-instruct)?", "mpt-30b", _EMPTY),
    (r"nllb-moe-54b", "nllb-moe-54b", _EMPTY),
    (r"OLMoE-1B-7B-(0924|0125)(-Instruct|-SFT)?", "olmoe-1b-7b", _EMPTY),
    (r"openmoe-8B(-chat)?", "openmoe-8b-32e", _EMPTY),
    (r"openmoe-34B(-200B)?", "openmoe-34b-32e", _EMPTY),
    (r"openmoe-base", "openmoe-base-16e", _EMPTY),
    (r"Phi-mini-MoE-instruct", "phi-mini-moe", _EMPTY),
    (r"Qwen2-57B-A14B(-Instruct)?", "qwen2-57b-a14b", _EMPTY),
    (r"Qwen2(\.5)?-72B(-Instruct)?", "qwen2-72b", _EMPTY),
    (r"Qwen2(\.5)?-7B(-Instruct)?", "qwen2-7b", _EMPTY),
    (r"gemma-4-26B-A4B(-it)?", "gemma-4-26b-a4b", _EMPTY),
    (r"Ministral-3-14B(-(Base|Instruct|Reasoning)-\d+)?", "ministral-3-14b", _EMPTY),
    (r"Step-3\.5-Flash", "step-3.5-flash", _EMPTY),
    (r"Qwen3-235B-A22B(-Instruct-2507|-Thinking-2507)?", "qwen3-235b-a22b", _EMPTY),
    (
        r"Qwen3-(Coder-30B-A3B-Instruct|30B-A3B(-Base|-Instruct-2507|-Thinking-2507)?)",
        "qwen3-30b-a3b",
        _EMPTY,
    ),
    (r"Qwen3-32B", "qwen3-32b", _EMPTY),
    (r"Qwen3-4B(-Base)?", "qwen3-4b", _EMPTY),
    (r"Qwen3-8B(-Base)?", "qwen3-8b", _EMPTY),
    (r"Qwen3-Next-80B-A3B-(Instruct|Thinking)", "qwen3-next-80b-a3b", _EMPTY),
    (r"Qwen3\.5-35B-A3B(-Base)?", "qwen3.5-35b-a3b", _EMPTY),
    (r"switch-base-8", "switch-base-8", _EMPTY),
    (r"switch-base-16", "switch-base-16", _EMPTY),
    (r"switch-base-32", "switch-base-32", _EMPTY),
    (r"switch-base-64", "switch-base-64", _EMPTY),
    (r"switch-base-128", "switch-base-128", _EMPTY),
    (r"switch-base-256", "switch-base-256", _EMPTY),
    (r"switch-large-128", "switch-large-128", _EMPTY),
    (r"switch-xxl-128", "switch-xxl-128", _EMPTY),
    (r"switch-c-2048", "switch-c-2048", _EMPTY),
    (r"t5-base", "t5-base", _EMPTY),
    (r"t5-large", "t5-large", _EMPTY),
    (r"t5-v1_1-xxl", "t5-xxl", _EMPTY),
)
"""Patterns of names without owner and suffix, the catalogue's name, formats as published."""

_FP8_MLP = MappingProxyType({"weights": "fp8", "attention": "bf16"})
SUFFIXES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    (r"[-_](?:NV)?FP4(?:-v\d)?", r"DeepSeek-.*", {"weights": "nvfp4", "attention": "bf16"}),
    (r"[-_](?:NV)?FP4(?:-v\d|A16)?", r".*", {"weights": "nvfp4"}),
    (r"-FP8", r"(Qwen3|MiniMax|DeepSeek).*", _BLOCKS),
    (r"-FP8", r"(Meta-)?Llama-(3\.1-405B|4-).*", _FP8_MLP),
    (r"[-_]FP8(?:[-_]dynamic|-KV)?", r".*", {"weights": "fp8"}),
    (r"-MXFP4", r".*", _MXFP4),
    (r"[-_](?:AWQ|GPTQ-Int4|GPTQ|W4A16(?:-G128)?|int4|quantized\.w4a16)", r".*",
     {"weights": "int4_weight_only"}),
    (r"[-_](?:GPTQ-Int8|W8A16|quantized\.w8a16)", r".*", {"weights": "int8_weight_only"}),
    (r"[-_](?:W8A8|INT8|quantized\.w8a8)", r".*", {"weights": "int8"}),
    (r"-BF16", r".*", {"weights": "bf16"}),
)  # fmt: skip
"""Suffixes, of which names, and the formats of such a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Published weights."""

    model: str
    """The model's name in the catalogue."""
    formats: Mapping[str, str] = field(default_factory=dict)
    """Keys of FormatsSpec; empty: bf16."""


def checkpoint(name: str) -> Checkpoint | None:
    """Return the checkpoint called `name` (`OWNER/NAME` or `NAME`); None where it is not known."""
    base = name.rstrip("/").rpartition("/")[2]
    if (found := _family(base)) is not None:
        return found
    for suffix, names, formats in SUFFIXES:
        cut = re.fullmatch(f"(.+?){suffix}", base, re.IGNORECASE)
        if cut is None or not re.match(names, base, re.IGNORECASE):
            continue
        if (found := _family(cut[1])) is not None:
            return Checkpoint(model=found.model, formats=dict(formats))
    return None


def _family(base: str) -> Checkpoint | None:
    for pattern, model, formats in FAMILIES:
        if re.fullmatch(pattern, base, re.IGNORECASE):
            return Checkpoint(model=model, formats=dict(formats))
    return None
