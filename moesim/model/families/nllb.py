"""NLLB-MoE: encoder and decoder with layer norms and biases, experts every few layers."""

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


def nllb_moe(config: Config) -> Architecture:
    """Return an NLLB-MoE: top-2 experts; positions are sinusoids, without parameters.

    `expert_capacity` is a number of tokens, not a factor, so it is not read here.
    """
    hidden = config.size("d_model", "hidden_size")
    return Architecture(
        name=config.name,
        source=config.source,
        hidden=hidden,
        vocab=config.size("vocab_size"),
        encoder=_side(config, "encoder", hidden),
        decoder=_side(config, "decoder", hidden),
        tied_embeddings=config.flag("tie_word_embeddings", default=True),  # NLLB always does
        norm="layer",
    )


def _side(config: Config, side: str, hidden: int) -> Stack:
    """Return the encoder or the decoder; step 0 means no experts at all."""
    width, step = config.size(f"{side}_ffn_dim"), config.count(f"{side}_sparse_step")
    decoder = side == "decoder"
    attention = _attention(config, side, hidden, causal=decoder)
    cross = _attention(config, side, hidden, causal=False) if decoder else None
    dense = DenseFfn(width=width, gated=False, bias=True)
    moe = MoeFfn(
        num_experts=config.size("num_experts", "num_local_experts"),
        top_k=2,  # NLLB's router always sends a token to two experts; no key says so
        expert_width=width,
        gated=False,
        expert_bias=True,
        router_bias=config.flag("router_bias", default=False),  # no released model has one
    )

    def layer(i: int) -> Layer:
        ffn: FfnKind = moe if step and (i + 1) % step == 0 else dense
        return Layer(
            attention=attention,
            ffn=ffn,
            cross_attention=cross,
            norms=3 if decoder else 2,
            norm="layer",
        )

    return stack(config.layers(f"{side}_layers"), layer)


def _attention(config: Config, side: str, hidden: int, *, causal: bool) -> GroupedQueryAttention:
    heads = config.size(f"{side}_attention_heads")
    if hidden % heads:
        config.fail(f"{side}_attention_heads", f"{heads} heads do not divide {hidden} channels")
    return GroupedQueryAttention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        qkv_bias=True,
        output_bias=True,
        causal=causal,
    )
