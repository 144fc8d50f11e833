"""Attention over a cache that decode context parallel ranks spread by tokens.

Each of dcp ranks among those of tp holds every dcp-th token of a sequence. In a decode step the
ranks gather each other's queries, attend with all of these to their own tokens, and bring partial
results together by the logarithms of their sums: gather these, reduce-scatter the weighted outputs.
A chunk of a prompt gathers the latent cache before it, or, with key/value heads, its queries as in
decoding. Source: vLLM, --decode-context-parallel-size (docs, context_parallel_deployment;
v1/attention/backends/flash_attn.py and mla/common.py; from memory, unchecked); Helix Parallelism
(arXiv 2507.07120, from memory) is the same law with one exchange of outputs.
"""

from dataclasses import replace

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.serving.attention import cache_bytes_per_token, decode_s, latent_decode_s
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.exchange import each_s
from moesim.cost.serving.products import passes_s
from moesim.model.architecture import GroupedQueryAttention, LatentAttention

_WIDE, _FLOAT = 2.0, 4.0
"""Bytes of queries and outputs (bf16), and of a logarithm of a sum."""

Spread = GroupedQueryAttention | LatentAttention


def most_ranks(attention: Spread, tp: int) -> int:
    """Return how many of tp ranks hold the same cache, which is what dcp may spread."""
    return tp if isinstance(attention, LatentAttention) else max(1, tp // attention.kv_heads)


def spread_decode_s(attention: Spread, sequences: int, tokens: Array, on: Deployment) -> Array:
    """Return a step over the cache of a rank, t / dcp tokens a sequence, and the exchange.

    A rank attends with the heads of dcp ranks. Of latent attention, whose measured module has the
    projections in it, those of dcp ranks' heads are taken off: a(h, t) = m(h dcp, t / dcp) -
    m(h dcp, 1) + m(h, 1).
    """
    dcp = on.cut.dcp
    own = np.maximum(tokens / dcp, 1.0)
    moved = float(exchanged_s(attention, np.array([float(sequences)]), on)[0])
    if isinstance(attention, GroupedQueryAttention):
        wide = replace(on, cut=replace(on.cut, tp=on.cut.tp // dcp))
        return np.asarray(decode_s(attention, sequences, own, wide) + moved)
    heads, one = max(1, attention.heads // on.cut.tp), np.ones_like(own)
    whole = latent_decode_s(attention, sequences, own, heads * dcp, on=on)
    around = latent_decode_s(attention, sequences, one, heads * dcp, on=on)
    projected = latent_decode_s(attention, sequences, one, heads, on=on)
    return np.asarray(whole - around + projected + moved)


def exchanged_s(attention: Spread, rows: Array, on: Deployment) -> Array:
    """Return what so many queries cost: gathered, and their results merged and handed back.

    With heads h of dcp ranks: h * width of a query, dcp * h logarithms, h * width of an output.
    """
    net, heads = on.networks["dcp"], attention.heads * on.cut.dcp / on.cut.tp
    query, value = _widths(attention)
    asked = each_s("all_gather", rows * (_WIDE * heads * query), net, on)
    logs = each_s("all_gather", rows * (_FLOAT * heads * on.cut.dcp), net, on)
    weighted = passes_s(rows, 2 * _WIDE * heads * value, on)
    return (
        asked + logs + weighted + each_s("reduce_scatter", rows * (_WIDE * heads * value), net, on)
    )


def gathered_s(attention: Spread, tokens: Array, past: Array, on: Deployment) -> Array:
    """Return what a chunk of `tokens` after `past` adds: nothing without tokens before it.

    Its products are as many as without: each rank does 1 / dcp of the tokens for dcp times the
    heads, or all of the gathered tokens for its own.
    """
    if on.cut.dcp == 1 or not past.any():
        return np.zeros_like(tokens)
    if isinstance(attention, LatentAttention):
        size = cache_bytes_per_token(attention, on)
        return each_s("all_gather", past * size, on.networks["dcp"], on)
    return np.where(past > 0, exchanged_s(attention, tokens, on), 0.0)


def _widths(attention: Spread) -> tuple[float, float]:
    """Return the width of a head's query and of its output, as they travel.

    Latent attention's are those of the latent space: the rank of the cache, and rope beside it.
    """
    if isinstance(attention, LatentAttention):
        rank = attention.kv_lora_rank
        return rank + attention.qk_rope_head_dim, rank
    return attention.head_dim, attention.head_dim
