"""Llama, Mistral and Llama 4."""

from dataclasses import replace

from moesim.model.architecture import (
    Architecture,
    DenseFfn,
    FfnKind,
    GroupedQueryAttention,
    Layer,
    MoeFfn,
    Run,
)
from moesim.model.families.config import Config
from moesim.model.families.parts import gqa, head_dim, layer_types, network, stack


def llama(config: Config) -> Architecture:
    """Return a Llama 1 to 3."""
    bias = config.flag("attention_bias", default=False)  # no Llama has biases unless it says so
    heads = config.size("num_attention_heads")
    attention = GroupedQueryAttention(
        heads=heads,
        # Files older than grouped-query attention lack the key: then every head has its own.
        kv_heads=config.optional_size("num_key_value_heads") or heads,
        head_dim=head_dim(config),
        qkv_bias=bias,
        output_bias=bias,
    )
    ffn = DenseFfn(
        width=config.size("intermediate_size"), bias=config.flag("mlp_bias", default=False)
    )
    layers = config.layers("num_hidden_layers")
    tied = config.flag("tie_word_embeddings", default=False)  # tied only where stated (3.2)
    return network(config, (Run(Layer(attention=attention, ffn=ffn), layers),), tied=tied)


def mistral(config: Config) -> Architecture:
    """Return a dense Mistral; `sliding_window` is a number in v0.1 and null later."""
    attention = gqa(config, dim=head_dim(config), window=config.optional_size("sliding_window"))
    ffn = DenseFfn(width=config.size("intermediate_size"))
    layers = config.layers("num_hidden_layers")
    tied = config.flag("tie_word_embeddings", default=False)  # tied only where stated
    return network(config, (Run(Layer(attention=attention, ffn=ffn), layers),), tied=tied)


def llama4(config: Config) -> Architecture:
    """Return the language model of a Llama 4; its vision tower is left out.

    `intermediate_size` is the expert's and the shared expert's width, `intermediate_size_mlp`
    that of the dense layers. Chunked attention is described as a window of the chunk's length.
    """
    text = config.language_model()
    layers = text.layers("num_hidden_layers")
    bias = text.flag("attention_bias", default=False)  # no Llama has biases unless it says so
    full = gqa(text, dim=text.size("head_dim"), qkv_bias=bias, output_bias=bias)
    local = replace(full, window=text.optional_size("attention_chunk_size"))
    chunked = _chunked_layers(text, layers)
    with_experts = _moe_layers(text, layers)
    dense = DenseFfn(width=text.size("intermediate_size_mlp"))
    width = text.size("intermediate_size")
    moe = MoeFfn(
        num_experts=text.size("num_local_experts", "num_experts"),
        top_k=text.size("num_experts_per_tok"),
        expert_width=width,
        shared_width=width,  # one shared expert, part of the architecture: no key says so
    )

    def layer(i: int) -> Layer:
        ffn: FfnKind = moe if i in with_experts else dense
        return Layer(attention=local if chunked[i] else full, ffn=ffn)

    tied = text.flag("tie_word_embeddings", default=False)  # neither published model ties them
    return network(text, stack(layers, layer), tied=tied)


def _chunked_layers(config: Config, layers: int) -> list[bool]:
    words = layer_types(config, layers, ("chunked_attention", "full_attention"))
    if words:
        return [word == "chunked_attention" for word in words]
    rotary = config.numbers("no_rope_layers")  # 1 where the layer does use rotary positions
    if rotary:
        if len(rotary) != layers:
            config.fail("no_rope_layers", f"has {len(rotary)} entries for {layers} layers")
        return [value == 1 for value in rotary]
    # Llama 4 is defined by every fourth layer seeing everything, without positions.
    every = config.optional_size("no_rope_layer_interval") or 4
    return [(i + 1) % every != 0 for i in range(layers)]


def _moe_layers(config: Config, layers: int) -> set[int]:
    if config.first("moe_layers")[1] is not None:
        return set(config.numbers("moe_layers"))
    step = config.size("interleave_moe_layer_step")
    return set(range(step - 1, layers, step))
