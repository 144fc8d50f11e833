"""Qwen3-Next and Qwen3.5-MoE: gated delta nets, with full attention in every fourth layer."""

from moesim.model.architecture import (
    Architecture,
    AttentionKind,
    GroupedQueryAttention,
    Layer,
    LinearAttention,
)
from moesim.model.families.config import Config
from moesim.model.families.parts import layer_types, network, stack
from moesim.model.families.qwen import qwen_experts, qwen_ffns


def qwen3_next(config: Config) -> Architecture:
    """Return a Qwen3-Next."""
    return _hybrid(config, tied=config.flag("tie_word_embeddings", default=False))


def qwen3_5_moe(config: Config) -> Architecture:
    """Return the language model of a Qwen3.5-MoE; its vision tower is left out."""
    text = config.language_model()
    # The outer file states it for the whole; no model of this family ties them.
    return _hybrid(text, tied=config.flag("tie_word_embeddings", default=False))


def _hybrid(config: Config, *, tied: bool) -> Architecture:
    layers = config.layers("num_hidden_layers")
    full = _full_layers(config, layers)
    bias = config.flag("attention_bias", default=False)
    softmax = GroupedQueryAttention(
        heads=config.size("num_attention_heads"),
        kv_heads=config.size("num_key_value_heads"),
        head_dim=config.size("head_dim"),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="per_head",
        output_gate=config.flag("attn_output_gate", default=True),  # part of the architecture
    )
    linear = LinearAttention(
        key_heads=config.size("linear_num_key_heads"),
        value_heads=config.size("linear_num_value_heads"),
        key_head_dim=config.size("linear_key_head_dim"),
        value_head_dim=config.size("linear_value_head_dim"),
        conv_kernel=config.size("linear_conv_kernel_dim"),
    )
    ffns = qwen_ffns(config, layers, qwen_experts(config, shared=True))

    def layer(i: int) -> Layer:
        attention: AttentionKind = softmax if full[i] else linear
        return Layer(attention=attention, ffn=ffns[i])

    return network(
        config,
        stack(layers, layer),
        tied=tied,
        mtp_layers=config.optional_count("mtp_num_hidden_layers", "num_nextn_predict_layers"),
    )


def _full_layers(config: Config, layers: int) -> list[bool]:
    words = layer_types(config, layers, ("linear_attention", "full_attention"))
    if words:
        return [word == "full_attention" for word in words]
    every = config.size("full_attention_interval")
    return [(i + 1) % every == 0 for i in range(layers)]
