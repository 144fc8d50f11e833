"""Everything of a layer but attention itself, for many numbers of tokens at once."""

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.exchange_overlap import together_s
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.exchange import all_reduce_s, brought_s
from moesim.cost.serving.experts import experts_s
from moesim.cost.serving.products import gemm_s, passes_s
from moesim.cost.two_streams import interference
from moesim.model.architecture import (
    DenseFfn,
    GroupedQueryAttention,
    Layer,
    LinearAttention,
    MoeFfn,
)

_WIDE = 2.0
"""Bytes of an activation between kernels: bf16."""


def layer_s(layer: Layer, tokens: Array, on: Deployment) -> Array:
    """Return a layer without attention, routed experts and exchange, for one attention group."""
    hidden = on.architecture.hidden
    norms = 2 * passes_s(tokens, 4 * _WIDE * hidden, on)
    around = _projections_s(layer, tokens, on) + cross_s(layer, tokens, on)
    return norms + around + _ffn_s(layer.ffn, tokens, on)


def cross_s(layer: Layer, tokens: Array, on: Deployment) -> Array:
    """Return what a decoder's tokens take around attention over the encoder's output.

    Norm, query and output projection, and the sum over tensor parallel ranks; keys and values are
    projected once, from the prompt: `memory_projection_s`.
    """
    cross, hidden = layer.cross_attention, on.architecture.hidden
    if cross is None:
        return np.zeros_like(tokens)
    width = max(1, cross.heads // on.cut.tp) * cross.head_dim
    number = on.formats.attention
    return (
        passes_s(tokens, 4 * _WIDE * hidden, on)
        + gemm_s(tokens, width, hidden, number, on)
        + gemm_s(tokens, hidden, width, number, on)
        + all_reduce_s(tokens, on)
    )


def memory_projection_s(layer: Layer, tokens: Array, on: Deployment) -> Array:
    """Return the keys and values of cross-attention from so many tokens of encoders' output."""
    cross = layer.cross_attention
    if cross is None:
        return np.zeros_like(tokens)
    width = 2 * max(1, cross.kv_heads // on.cut.tp) * cross.head_dim
    return gemm_s(tokens, width, on.architecture.hidden, on.formats.attention, on)


def _projections_s(layer: Layer, tokens: Array, on: Deployment) -> Array:
    """Return the projections around attention and what sums them; latent attention has its own."""
    attention, hidden, tp = layer.attention, on.architecture.hidden, on.cut.tp
    summed = all_reduce_s(tokens, on)
    if not isinstance(attention, GroupedQueryAttention | LinearAttention):
        return summed
    if isinstance(attention, LinearAttention):
        q = attention.value_heads * attention.value_head_dim // tp
        kv = 2 * attention.key_heads * attention.key_head_dim // tp + q  # with the output's gate
    else:
        q = max(1, attention.heads // tp) * attention.head_dim
        kv = 2 * max(1, attention.kv_heads // tp) * attention.head_dim
    number = on.formats.attention
    rotated = passes_s(tokens, 2 * _WIDE * (q + kv / 2), on)
    return (
        gemm_s(tokens, q + kv, hidden, number, on)
        + rotated
        + gemm_s(tokens, hidden, q, number, on)
        + summed
    )


def _ffn_s(ffn: DenseFfn | MoeFfn, tokens: Array, on: Deployment) -> Array:
    if isinstance(ffn, DenseFfn):
        return _dense_s(ffn.width, ffn.gated, tokens, on) + all_reduce_s(tokens, on)
    hidden = on.architecture.hidden
    router = gemm_s(tokens, ffn.num_experts, hidden, "bf16", on)
    return router + beside_experts_s(ffn, tokens, on)


def beside_experts_s(ffn: MoeFfn, tokens: Array, on: Deployment) -> Array:
    """Return shared experts and dense networks beside the routed ones."""
    widths = [width for width in (ffn.shared_width, ffn.parallel_dense_width) if width]
    total = np.zeros_like(tokens)
    for width in widths:
        total = total + _dense_s(width, ffn.gated, tokens, on)
    return total


def exchanged_s(layer: Layer, tokens: Array, on: Deployment) -> Array:
    """Return what brings tokens to their experts and the results back, beside what may hide it.

    Where the engine runs shared experts meanwhile, only what sticks out beyond them.
    """
    ffn = layer.ffn
    if not isinstance(ffn, MoeFfn):
        return np.zeros_like(tokens)
    sent = brought_s(tokens, ffn, on)
    if on.overlap != "shared_expert" or on.cut.dp == 1:
        return sent
    hides = beside_experts_s(ffn, tokens, on)
    return together_each_s(hides, sent, on) - hides


def together_each_s(compute: Array, sent: Array, on: Deployment) -> Array:
    """Return how long compute takes with an exchange beside it, for each of many."""
    cost = interference(on.device, on.software)
    pairs = zip(compute, sent, strict=True)
    return np.array([together_s(float(one), float(other), cost) for one, other in pairs])


def routed_s(layer: Layer, tokens: Array, on: Deployment) -> Array:
    """Return the routed experts of a layer; tokens are of all attention groups together."""
    ffn = layer.ffn
    return experts_s(tokens, ffn, on) if isinstance(ffn, MoeFfn) else np.zeros_like(tokens)


def _dense_s(width: int, gated: bool, tokens: Array, on: Deployment) -> Array:
    hidden, local = on.architecture.hidden, max(1, width // on.cut.tp)
    up = local * (2 if gated else 1)
    number = on.formats.dense
    return (
        gemm_s(tokens, up, hidden, number, on)
        + passes_s(tokens, _WIDE * (up + local), on)
        + gemm_s(tokens, hidden, local, number, on)
    )


def embedding_s(tokens: Array, on: Deployment) -> Array:
    """Return the look-up of tokens and the last norm."""
    return 2 * passes_s(tokens, 2 * _WIDE * on.architecture.hidden, on)


def head_s(sequences: Array, on: Deployment) -> Array:
    """Return the logits of one token per sequence, and the choice of the next one."""
    hidden, vocab = on.architecture.hidden, max(1, on.architecture.vocab // on.cut.tp)
    logits = gemm_s(sequences, vocab, hidden, on.formats.head, on)
    return logits + passes_s(sequences, 4 * 4.0 * on.architecture.vocab, on)
