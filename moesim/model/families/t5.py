"""T5 and Switch Transformers: encoder and decoder, with relative positions in the first layers."""

from dataclasses import replace

from moesim.model.architecture import (
    Architecture,
    DenseFfn,
    FfnKind,
    GroupedQueryAttention,
    Layer,
    MoeFfn,
    Stack,
)
from moesim.model.families.config import Config
from moesim.model.families.parts import stack


def t5(config: Config) -> Architecture:
    """Return a T5 or T5 v1.1; `feed_forward_proj` says whether the FFN is gated."""
    ffn = DenseFfn(width=config.size("d_ff"), gated=_gated(config))
    encoder, decoder = _depths(config)
    return _network(config, [ffn] * encoder, [ffn] * decoder)


def switch_transformers(config: Config) -> Architecture:
    """Return a Switch Transformer: top-1 experts as wide as the dense FFN.

    `expert_capacity` is a number of tokens per sequence, not a factor, so it is not read here.
    """
    gated = _gated(config)
    dense = DenseFfn(width=config.size("d_ff"), gated=gated)
    moe = MoeFfn(
        num_experts=config.size("num_experts", "num_local_experts"),
        top_k=1,  # what makes it a Switch Transformer
        expert_width=config.size("d_ff"),
        gated=gated,
        router_bias=config.flag("router_bias", default=False),  # no released model has one
    )
    encoder, decoder = _depths(config)
    return _network(
        config,
        _sparse(encoder, config.count("num_sparse_encoder_layers"), dense, moe),
        _sparse(decoder, config.count("num_sparse_decoder_layers"), dense, moe),
    )


def _sparse(layers: int, sparse: int, dense: DenseFfn, moe: MoeFfn) -> list[FfnKind]:
    """Spread `sparse` layers with experts: the second of every layers // sparse."""
    step = layers // sparse if sparse else 0
    return [moe if step and (step == 1 or i % step == 1) else dense for i in range(layers)]


def _depths(config: Config) -> tuple[int, int]:
    encoder = config.layers("num_layers")
    # Null or absent is documented as "as deep as the encoder".
    given = config.first("num_decoder_layers")[1] is not None
    return encoder, config.layers("num_decoder_layers") if given else encoder


def _gated(config: Config) -> bool:
    activation = config.text("feed_forward_proj") or config.text("dense_act_fn")
    if not activation:
        config.fail("feed_forward_proj", "is missing; it says whether the FFN is gated")
    return activation.startswith("gated")


def _network(
    config: Config, encoder: list[DenseFfn] | list[FfnKind], decoder: list[DenseFfn] | list[FfnKind]
) -> Architecture:
    heads = config.size("num_heads")
    attention = GroupedQueryAttention(heads=heads, kv_heads=heads, head_dim=config.size("d_kv"))
    around = replace(attention, causal=False)
    # Only the first layer of each stack owns the table of relative positions.
    table = heads * config.size("relative_attention_num_buckets")

    def encoder_layer(i: int) -> Layer:
        return Layer(attention=around, ffn=encoder[i], extra_params=0 if i else table)

    def decoder_layer(i: int) -> Layer:
        return Layer(
            attention=attention,
            ffn=decoder[i],
            cross_attention=around,
            norms=3,
            extra_params=0 if i else table,
        )

    encoder_stack: Stack = stack(len(encoder), encoder_layer)
    return Architecture(
        name=config.name,
        source=config.source,
        hidden=config.size("d_model"),
        vocab=config.size("vocab_size"),
        encoder=encoder_stack,
        decoder=stack(len(decoder), decoder_layer),
        tied_embeddings=config.flag("tie_word_embeddings", default=True),  # v1.1 says false
    )
