"""Qwen2 and Qwen3, dense and with experts."""

from moesim.model.architecture import Architecture, DenseFfn, FfnKind, Layer, MoeFfn
from moesim.model.families.config import Config
from moesim.model.families.parts import gqa, head_dim, layer_types, network, stack


def qwen2(config: Config) -> Architecture:
    """Return a dense Qwen2 or Qwen2.5: biases on queries, keys and values, always."""
    return _dense(config, qk_norm=False)


def qwen3(config: Config) -> Architecture:
    """Return a dense Qwen3: a norm on each head of queries and keys."""
    return _dense(config, qk_norm=True)


def qwen2_moe(config: Config) -> Architecture:
    """Return a Qwen2-MoE or Qwen1.5-MoE, with a gated shared expert."""
    layers = config.layers("num_hidden_layers")
    # The modelling code has these biases unless a later file turns them off.
    bias = config.flag("qkv_bias", default=True)
    ffns = qwen_ffns(config, layers, qwen_experts(config, shared=True))
    windows = _windows(config, layers, alternate=True)

    def layer(i: int) -> Layer:
        attention = gqa(config, dim=head_dim(config), qkv_bias=bias, window=windows[i])
        return Layer(attention=attention, ffn=ffns[i])

    return network(config, stack(layers, layer), tied=_tied(config))


def qwen3_moe(config: Config) -> Architecture:
    """Return a Qwen3-MoE: no shared expert."""
    sliding = config.flag("use_sliding_window", default=False)
    bias = config.flag("attention_bias", default=False)
    attention = gqa(
        config,
        dim=config.size("head_dim"),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm="per_head",
        window=config.size("sliding_window") if sliding else None,
    )
    layers = config.layers("num_hidden_layers")
    ffns = qwen_ffns(config, layers, qwen_experts(config, shared=False))

    def layer(i: int) -> Layer:
        return Layer(attention=attention, ffn=ffns[i])

    return network(config, stack(layers, layer), tied=_tied(config))


def qwen_experts(config: Config, *, shared: bool) -> MoeFfn:
    """Return the experts; `shared_expert_intermediate_size` is a width, not a number of them."""
    width = config.count("shared_expert_intermediate_size") if shared else 0
    return MoeFfn(
        num_experts=config.size("num_experts", "num_local_experts"),
        top_k=config.size("num_experts_per_tok"),
        expert_width=config.size("moe_intermediate_size"),
        shared_width=width,
        shared_gate=width > 0,
    )


def qwen_ffns(config: Config, layers: int, moe: MoeFfn) -> list[FfnKind]:
    """Return what each layer has: experts every `decoder_sparse_step`-th layer."""
    # Absent in the newest files (Qwen3.5), where every layer has experts.
    step = config.optional_size("decoder_sparse_step") or 1
    without = set(config.numbers("mlp_only_layers"))
    dense = [i in without or (i + 1) % step != 0 for i in range(layers)]
    if not any(dense):  # then nothing needs the width of the dense layers
        return [moe] * layers
    ffn = DenseFfn(width=config.size("intermediate_size"))
    return [ffn if here else moe for here in dense]


def _dense(config: Config, *, qk_norm: bool) -> Architecture:
    layers = config.layers("num_hidden_layers")
    windows = _windows(config, layers, alternate=False)
    ffn = DenseFfn(width=config.size("intermediate_size"))
    # Qwen2 has qkv biases and no key for them; Qwen3 has none unless `attention_bias` says so.
    bias = config.flag("attention_bias", default=False) if qk_norm else True

    def layer(i: int) -> Layer:
        attention = gqa(
            config,
            dim=config.size("head_dim") if qk_norm else head_dim(config),
            qkv_bias=bias,
            output_bias=bias and qk_norm,
            qk_norm="per_head" if qk_norm else "none",
            window=windows[i],
        )
        return Layer(attention=attention, ffn=ffn)

    return network(config, stack(layers, layer), tied=_tied(config))


def _windows(config: Config, layers: int, *, alternate: bool) -> list[int | None]:
    """Return each layer's window: the dense models slide in the layers from `max_window_layers`
    on, Qwen2-MoE in every other layer before it.
    """
    words = layer_types(config, layers, ("full_attention", "sliding_attention"))
    if words:
        return [
            config.size("sliding_window") if word == "sliding_attention" else None for word in words
        ]
    if not config.flag("use_sliding_window", default=False):  # documented: off unless stated
        return [None] * layers
    window, limit = config.size("sliding_window"), config.count("max_window_layers")
    slides = [(i < limit and i % 2 == 0) if alternate else i >= limit for i in range(layers)]
    return [window if slide else None for slide in slides]


def _tied(config: Config) -> bool:
    # Only the small Qwens tie them, and those say so.
    return config.flag("tie_word_embeddings", default=False)
