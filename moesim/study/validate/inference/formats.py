"""Number formats from the words of a case: of weights by component, and of the cache."""

from collections.abc import Iterable

from moesim.model.architecture import Architecture, LatentAttention, Layer, layers_of
from moesim.study.validate.inference.words import Said

_BLOCKS = ("deepseek", "qwen3", "minimax", "kimi", "step-3")
"""Families whose published fp8 checkpoints have scales for blocks of 128 x 128 weights
(quantization_config.weight_block_size in their config.json; from memory, unchecked)."""


def read_formats(
    said: Said, architecture: Architecture, profile: str, engine: str
) -> dict[str, str]:
    """Return the formats of a scenario by component."""
    row = " ".join(str(said.row.get(key) or "") for key in ("quant", "checkpoint", "weights"))
    text = f"{row} {_stated(said)}".casefold()
    found = _weights(said, text, architecture, profile)
    cache = _cache(said)
    narrow = found["weights"] in ("fp8", "fp8_block128", "nvfp4")
    if any(word in cache for word in ("fp8", "e4m3")):
        found["cache"] = "fp8"
    elif narrow and not cache.strip() and engine == "tensorrt-llm":
        said.assume("cache in fp8, as in NVIDIA's quantised checkpoints (from memory, unchecked)")
        found["cache"] = "fp8"
    return found


def _stated(said: Said) -> str:
    stated = said.text("precision", "weights")
    if "see row" in stated.casefold() or stated.startswith("as in checkpoint"):
        return ""
    return stated


def _cache(said: Said) -> str:
    if (of_row := said.row.get("kv_dtype")) is not None:
        return str(of_row).casefold()
    flags = said.text("engine", "flags").casefold()
    at = flags.find("kv ")
    words = f"{said.text('precision', 'kv')} {said.text('precision', 'weights').partition('KV')[2]}"
    return f"{words.casefold()} {flags[at : at + 12] if at >= 0 else ''}"


def _weights(said: Said, text: str, architecture: Architecture, profile: str) -> dict[str, str]:
    new = any(word in profile for word in ("b200", "b300"))
    name = f"{said.case.text('model')} {said.row.get('checkpoint') or ''}".casefold()
    if "mxfp4" in text or "gpt-oss" in name:
        experts = "w4a8_mxfp4_mxfp8" if new else "w4a16_mxfp4"
        return {"weights": "bf16", "experts": experts}
    if "fp4" in text:
        latent = any(isinstance(one.attention, LatentAttention) for one in _layers(architecture))
        return {"weights": "nvfp4", **({"attention": "bf16"} if latent else {})}
    if "fp8" in text or "w8a8" in text:
        return {"weights": "fp8_block128" if any(one in name for one in _BLOCKS) else "fp8"}
    for words, number in _OTHERS:
        if any(word in text for word in words):
            return {"weights": number}
    said.assume("number format of the weights not stated: bf16")
    return {"weights": "bf16"}


_OTHERS = (
    (("int4", "awq", "gptq", "w4a16"), "int4_weight_only"), (("int8",), "int8"),
    (("bf16", "fp16", "16 bit"), "bf16"),
)  # fmt: skip


def _layers(architecture: Architecture) -> Iterable[Layer]:
    return layers_of(architecture.decoder)
