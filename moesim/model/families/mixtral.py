"""Networks whose every layer is a plain mixture of experts: Mixtral, OLMoE, Phi-MoE, DBRX."""

from moesim.model.architecture import Architecture, GroupedQueryAttention, Layer, MoeFfn, Run
from moesim.model.families.config import Config
from moesim.model.families.parts import gqa, head_dim, network


def mixtral(config: Config) -> Architecture:
    """Return a Mixtral; `intermediate_size` is the width of one expert."""
    attention = gqa(
        config,
        dim=head_dim(config),
        window=config.optional_size("sliding_window"),  # null is full attention
    )
    moe = MoeFfn(
        num_experts=config.size("num_local_experts", "num_experts"),
        top_k=config.size("num_experts_per_tok"),
        expert_width=config.size("intermediate_size"),
    )
    layers = config.layers("num_hidden_layers")
    tied = config.flag("tie_word_embeddings", default=False)  # no Mixtral ties them
    return network(config, (Run(Layer(attention=attention, ffn=moe), layers),), tied=tied)


def olmoe(config: Config) -> Architecture:
    """Return an OLMoE: queries and keys are normalised over all heads together."""
    bias = config.flag("attention_bias", default=False)  # OLMoE has no biases unless it says so
    attention = gqa(
        config, dim=head_dim(config), qkv_bias=bias, output_bias=bias, qk_norm="per_layer"
    )
    moe = MoeFfn(
        num_experts=config.size("num_experts", "num_local_experts"),
        top_k=config.size("num_experts_per_tok"),
        expert_width=config.size("intermediate_size"),
    )
    layers = config.layers("num_hidden_layers")
    tied = config.flag("tie_word_embeddings", default=False)  # no OLMoE ties them
    return network(config, (Run(Layer(attention=attention, ffn=moe), layers),), tied=tied)


def phimoe(config: Config) -> Architecture:
    """Return a Phi-MoE: layer norms with bias, biases in attention and in the logits."""
    bias = config.flag("attention_bias", default=False)  # stated by every Phi-MoE that has them
    attention = gqa(
        config,
        dim=head_dim(config),
        qkv_bias=bias,
        output_bias=bias,
        window=config.optional_size("sliding_window"),
    )
    moe = MoeFfn(
        num_experts=config.size("num_local_experts", "num_experts"),
        top_k=config.size("num_experts_per_tok"),
        expert_width=config.size("intermediate_size"),
    )
    layers = config.layers("num_hidden_layers")
    return network(
        config,
        (Run(Layer(attention=attention, ffn=moe, norm="layer"), layers),),
        tied=config.flag("tie_word_embeddings", default=False),  # no Phi-MoE ties them
        norm="layer",
        lm_head_bias=config.flag("lm_head_bias", default=False),
    )


def dbrx(config: Config) -> Architecture:
    """Return a DBRX, whose geometry has its own key names and two nested parts.

    `attn_config.top_k` is about sampling; the router's is `ffn_config.moe_top_k`.
    """
    hidden, heads = config.size("d_model", "hidden_size"), config.size("n_heads")
    if hidden % heads:
        config.fail("n_heads", f"{heads} heads do not divide {hidden} channels")
    ffn = config.part("ffn_config")
    layer = Layer(
        attention=GroupedQueryAttention(
            heads=heads,
            kv_heads=config.part("attn_config").size("kv_n_heads"),
            head_dim=hidden // heads,
        ),
        ffn=MoeFfn(
            num_experts=ffn.size("moe_num_experts"),
            top_k=ffn.size("moe_top_k"),
            expert_width=ffn.size("ffn_hidden_size"),
        ),
        # DBRX has layer norms without bias: one weight per channel, as an RMS norm has.
        norm="rms",
    )
    return Architecture(
        name=config.name,
        source=config.source,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        decoder=(Run(layer, config.layers("n_layers")),),
        tied_embeddings=config.flag("tie_word_embeddings", default=False),  # no DBRX ties them
    )
