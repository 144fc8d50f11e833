"""Gemma 4 with experts: a dense network beside them, and two geometries of attention."""

from moesim.model.architecture import (
    Architecture,
    DenseFfn,
    FfnKind,
    GroupedQueryAttention,
    Layer,
    MoeFfn,
)
from moesim.model.families.config import Config
from moesim.model.families.parts import layer_types, network, stack


def gemma4(config: Config) -> Architecture:
    """Return the language model of a Gemma 4; vision and audio towers are left out."""
    text = config.language_model()
    for key in ("num_kv_shared_layers", "hidden_size_per_layer_input"):
        if text.optional_count(key):
            text.fail(key, "layers that share keys or have their own inputs are not modelled")
    layers = text.layers("num_hidden_layers")
    words = layer_types(text, layers, ("sliding_attention", "full_attention"))
    if not words:
        text.fail("layer_types", "is missing; it says which layers have a window")
    sliding, full = _sliding(text), _full(text)
    has_experts = text.flag("enable_moe_block", default=False)
    ffn = _ffn(text, has_experts)

    def layer(i: int) -> Layer:
        return Layer(
            attention=full if words[i] == "full_attention" else sliding,
            ffn=ffn,
            # Before and after attention and the dense network; the experts add three of their own.
            norms=7 if has_experts else 4,
        )

    tied = config.flag("tie_word_embeddings", default=True)  # every Gemma ties them
    return network(text, stack(layers, layer), tied=tied)


def _sliding(config: Config) -> GroupedQueryAttention:
    bias = config.flag("attention_bias", default=False)
    return GroupedQueryAttention(
        heads=config.size("num_attention_heads"),
        kv_heads=config.size("num_key_value_heads"),
        head_dim=config.size("head_dim"),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="per_head",
        window=config.size("sliding_window"),
    )


def _full(config: Config) -> GroupedQueryAttention:
    bias = config.flag("attention_bias", default=False)
    shared = config.flag("attention_k_eq_v", default=False)
    return GroupedQueryAttention(
        heads=config.size("num_attention_heads"),
        kv_heads=config.size("num_global_key_value_heads" if shared else "num_key_value_heads"),
        head_dim=config.size("global_head_dim"),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="per_head",
        shared_key_value=shared,
    )


def _ffn(config: Config, has_experts: bool) -> FfnKind:
    width = config.size("intermediate_size")
    if not has_experts:
        return DenseFfn(width=width)
    experts = config.size("num_experts", "num_local_experts")
    return MoeFfn(
        num_experts=experts,
        top_k=config.size("top_k_experts", "num_experts_per_tok"),
        expert_width=config.size("moe_intermediate_size"),
        parallel_dense_width=width,
        # The router scales its input per channel and its output per expert.
        extra_params=config.size("hidden_size") + experts,
    )
