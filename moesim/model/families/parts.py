"""Parts that many families share: grouped-query attention, layer patterns, the whole network."""

from collections.abc import Callable
from typing import Any, Literal

from moesim.model.architecture import (
    Architecture,
    GroupedQueryAttention,
    Layer,
    Norm,
    Stack,
    runs_of,
)
from moesim.model.families.config import Config

_DTYPES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "float8_e4m3fn": "fp8",
}


def head_dim(config: Config) -> int:
    """Return the width of a head; families call this where absence means hidden / heads."""
    stated = config.optional_size("head_dim")
    if stated is not None:
        return stated
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if hidden % heads:
        config.fail("head_dim", f"is missing, and {heads} heads do not divide {hidden} channels")
    return hidden // heads


def gqa(
    config: Config,
    *,
    dim: int,
    qkv_bias: bool = False,
    output_bias: bool = False,
    qk_norm: Literal["none", "per_head", "per_layer"] = "none",
    window: int | None = None,
) -> GroupedQueryAttention:
    """Return grouped-query attention from the keys that nearly all families share."""
    return GroupedQueryAttention(
        heads=config.size("num_attention_heads"),
        kv_heads=config.size("num_key_value_heads"),
        head_dim=dim,
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        qk_norm=qk_norm,
        window=window,
    )


def layer_types(config: Config, layers: int, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Return `layer_types`, one word per layer, or nothing where the key is absent."""
    words = config.words("layer_types")
    if words and len(words) != layers:
        config.fail("layer_types", f"has {len(words)} entries for {layers} layers")
    for word in words:
        if word not in allowed:
            config.fail("layer_types", f"'{word}' is not modelled; known: {', '.join(allowed)}")
    return words


def stack(layers: int, layer: Callable[[int], Layer]) -> Stack:
    """Return `layers` layers, the i-th of which is `layer(i)`."""
    return runs_of([layer(i) for i in range(layers)])


def network(
    config: Config,
    decoder: Stack,
    *,
    tied: bool,
    norm: Norm = "rms",
    mtp_layers: int = 0,
    lm_head_bias: bool = False,
) -> Architecture:
    """Return a decoder-only network; `config` is its text part."""
    return Architecture(
        name=config.name,
        source=config.source,
        hidden=config.size("hidden_size"),
        vocab=config.size("vocab_size"),
        decoder=decoder,
        tied_embeddings=tied,
        norm=norm,
        lm_head_bias=lm_head_bias,
        mtp_layers=mtp_layers,
    )


def weight_dtype(whole: Config, text: Config) -> str:
    """Return how the weights are stored: the quantisation if there is one, else the dtype."""
    for config in (whole, text):
        if config.data.get("quantization_config") is not None:
            return _quantised(config.part("quantization_config"))
    for config in (text, whole):
        key, word = config.first("dtype", "torch_dtype")  # transformers v5, v4
        if isinstance(word, str):
            # "auto" and the like say nothing; published MoE weights are bf16 unless they say so.
            return _DTYPES.get(word, "bf16")
        if word is not None:
            config.fail(key, "must be text")
    return "bf16"


def _quantised(config: Config) -> str:
    method = config.text("quant_method").lower()
    if method in ("fp8", "mxfp4"):
        return method
    if method in ("awq", "gptq"):
        return _integer(config, config.size("bits"))
    if method == "modelopt":
        return _modelopt(config)
    if method != "compressed-tensors":
        config.fail("quant_method", f"'{method}' is not modelled")
    return _compressed(config)


def _integer(config: Config, bits: int) -> str:
    if bits not in (4, 8):
        config.fail("bits", f"{bits} is not modelled; known: 4, 8")
    return f"int{bits}"


def _modelopt(config: Config) -> str:
    algorithm = config.text("quant_algo").upper()
    known = {"FP8": "fp8", "NVFP4": "nvfp4"}
    if algorithm not in known:
        config.fail("quant_algo", f"'{algorithm}' is not modelled; known: {', '.join(known)}")
    return known[algorithm]


def _compressed(config: Config) -> str:
    groups = config.part("config_groups")
    if not groups.data:
        config.fail("config_groups", "is empty")
    first: Any = next(iter(groups.data))
    weights = groups.part(str(first)).part("weights")
    bits = weights.size("num_bits")
    if weights.text("type") == "float":
        if bits not in (4, 8):
            weights.fail("num_bits", f"{bits} is not modelled; known: 4, 8")
        return {4: "nvfp4", 8: "fp8"}[bits]
    return _integer(weights, bits)
