"""MiniMax-Text-01 and M1 (lightning attention) and MiniMax-M2 (softmax attention)."""

from moesim.model.architecture import Architecture, AttentionKind, Layer, LinearAttention, MoeFfn
from moesim.model.families.config import Config
from moesim.model.families.parts import gqa, head_dim, layer_types, network, stack


def minimax(config: Config) -> Architecture:
    """Return a MiniMax-Text-01 or M1: lightning attention, softmax attention every few layers."""
    layers = config.layers("num_hidden_layers")
    full = _full_layers(config, layers)
    heads, dim = config.size("num_attention_heads"), head_dim(config)
    softmax = gqa(config, dim=dim)
    lightning = LinearAttention(
        key_heads=heads,
        value_heads=heads,
        key_head_dim=dim,
        value_head_dim=dim,
        conv_kernel=0,
        rule="lightning",
    )
    moe = _experts(config)

    def layer(i: int) -> Layer:
        attention: AttentionKind = softmax if full[i] else lightning
        return Layer(attention=attention, ffn=moe)

    return network(config, stack(layers, layer), tied=_tied(config))


def minimax_m2(config: Config) -> Architecture:
    """Return a MiniMax-M2: a norm over all heads of queries and keys."""
    norm = config.text("qk_norm_type", "per_layer")  # the only kind that M2 has
    if norm != "per_layer":
        config.fail("qk_norm_type", f"'{norm}' is not modelled; known: per_layer")
    attention = gqa(
        config,
        dim=config.size("head_dim"),
        qk_norm="per_layer" if config.flag("use_qk_norm", default=True) else "none",
    )
    moe = _experts(config)

    def layer(_: int) -> Layer:
        return Layer(attention=attention, ffn=moe)

    layers = config.layers("num_hidden_layers")
    uses_mtp = config.flag("use_mtp", default=False)
    return network(
        config,
        stack(layers, layer),
        tied=_tied(config),
        mtp_layers=_mtp_layers(config) if uses_mtp else 0,
    )


def _mtp_layers(config: Config) -> int:
    return config.size("num_mtp_modules") * config.size("mtp_transformer_layers")


def _experts(config: Config) -> MoeFfn:
    return MoeFfn(
        num_experts=config.size("num_local_experts", "num_experts"),
        top_k=config.size("num_experts_per_tok"),
        expert_width=config.size("intermediate_size"),
        shared_width=config.optional_count("shared_intermediate_size"),  # absent or 0: none
    )


def _full_layers(config: Config, layers: int) -> list[bool]:
    words = layer_types(config, layers, ("linear_attention", "full_attention"))
    if words:
        return [word == "full_attention" for word in words]
    kinds = config.numbers("attn_type_list")  # the publisher's spelling: 1 is softmax attention
    if len(kinds) != layers:
        config.fail("layer_types", "is missing (or 'attn_type_list'), one entry per layer")
    return [kind == 1 for kind in kinds]


def _tied(config: Config) -> bool:
    return config.flag("tie_word_embeddings", default=False)  # no MiniMax ties them
