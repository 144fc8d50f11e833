"""gpt-oss: biases everywhere, attention sinks, and a window in every other layer."""

from dataclasses import replace

from moesim.model.architecture import Architecture, Layer, MoeFfn
from moesim.model.families.config import Config
from moesim.model.families.parts import gqa, layer_types, network, stack


def gpt_oss(config: Config) -> Architecture:
    """Return a gpt-oss; `intermediate_size` is the width of one expert."""
    layers = config.layers("num_hidden_layers")
    words = layer_types(config, layers, ("sliding_attention", "full_attention"))
    if not words:
        config.fail("layer_types", "is missing; it says which layers have a window")
    bias = config.flag("attention_bias", default=True)  # every gpt-oss has them
    full = replace(
        gqa(config, dim=config.size("head_dim"), qkv_bias=bias, output_bias=bias), sinks=True
    )
    sliding = replace(full, window=config.size("sliding_window"))
    moe = MoeFfn(
        num_experts=config.size("num_local_experts", "num_experts"),
        top_k=config.size("num_experts_per_tok", "experts_per_token"),
        expert_width=config.size("intermediate_size"),
        expert_bias=True,
        router_bias=True,
    )

    def layer(i: int) -> Layer:
        return Layer(attention=sliding if words[i] == "sliding_attention" else full, ffn=moe)

    tied = config.flag("tie_word_embeddings", default=False)  # neither published model ties them
    return network(config, stack(layers, layer), tied=tied)
