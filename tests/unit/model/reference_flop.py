"""FLOP per token in closed form, written apart from moesim's operators to check them.

Conventions: training is three times the forward pass; a multiply-add is 2; matrix products only;
attention over the lower triangle counts half of the square (seq / 2 keys per query); router and
logits in, embedding look-up out; each multi-token-prediction module is one more layer like the
last, with logits and its projection from 2 x hidden to hidden. Encoder and decoder read `seq`
tokens each, and the result is per token of both together.
"""

from moesim.model.architecture import (
    Architecture,
    AttentionKind,
    DenseFfn,
    FfnKind,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    LinearAttention,
)


def gflop_per_token_causal(arch: Architecture, seq: int) -> float:
    """Return the GFLOP of training per token, at sequences of `seq` tokens."""
    layers = sum(
        run.count * _layer(run.layer, arch.hidden, seq) for run in (*arch.encoder, *arch.decoder)
    )
    logits = 2.0 * arch.hidden * arch.vocab
    last = _layer(arch.decoder[-1].layer, arch.hidden, seq)
    module = last + logits + 2.0 * (2 * arch.hidden) * arch.hidden
    streams = 2 if arch.encoder else 1
    return 3.0 * (layers + logits + arch.mtp_layers * module) / streams / 1e9


def _layer(layer: Layer, d: int, seq: int) -> float:
    cross = _softmax(layer.cross_attention, d, seq) if layer.cross_attention else 0.0
    return _attention(layer.attention, d, seq) + cross + _ffn(layer.ffn, d)


def _attention(attention: AttentionKind, d: int, seq: int) -> float:
    if isinstance(attention, GroupedQueryAttention):
        return _softmax(attention, d, seq)
    if isinstance(attention, LatentAttention):
        return _latent(attention, d, seq)
    return _linear(attention, d)


def _keys(seq: int, window: int | None, *, causal: bool) -> float:
    """Return how many keys a query meets on average, the lower triangle being half a square."""
    if not causal:
        return float(seq)
    w = min(window or seq, seq)
    return w * (seq - w / 2) / seq


def _softmax(a: GroupedQueryAttention, d: int, seq: int) -> float:
    q, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    weights = d * q * (2 + a.output_gate) + d * kv * (2 - a.shared_key_value)
    return 2.0 * weights + 4.0 * q * _keys(seq, a.window, causal=a.causal)


def _latent(a: LatentAttention, d: int, seq: int) -> float:
    qk = a.heads * (a.qk_nope_head_dim + a.qk_rope_head_dim)
    v = a.heads * a.v_head_dim
    weights = d * qk if a.q_lora_rank is None else a.q_lora_rank * (d + qk)
    weights += d * (a.kv_lora_rank + a.qk_rope_head_dim)
    weights += a.kv_lora_rank * (a.heads * a.qk_nope_head_dim + v)
    weights += v * d
    chosen = a.indexer.top_k if a.indexer else None
    scores = 2.0 * (qk + v) * _keys(seq, chosen, causal=True)
    return 2.0 * weights + scores + _indexer(a, d, seq)


def _indexer(a: LatentAttention, d: int, seq: int) -> float:
    if a.indexer is None:
        return 0.0
    q = a.indexer.heads * a.indexer.head_dim
    weights = (a.q_lora_rank or d) * q + d * a.indexer.head_dim + d * a.indexer.heads
    return 2.0 * weights + 2.0 * q * seq / 2


def _linear(a: LinearAttention, d: int) -> float:
    """Projections, and the state per value head: written and read, and corrected in between."""
    k, v = a.key_heads * a.key_head_dim, a.value_heads * a.value_head_dim
    gates = 2 * a.value_heads if a.rule == "gated_delta" else 0
    products = 3 if a.rule == "gated_delta" else 2
    return 2.0 * d * (2 * k + 3 * v + gates) + 2.0 * products * v * a.key_head_dim


def _ffn(ffn: FfnKind, d: int) -> float:
    matrices = 3 if ffn.gated else 2
    if isinstance(ffn, DenseFfn):
        return 2.0 * matrices * d * ffn.width
    width = ffn.top_k * ffn.expert_width + ffn.shared_width + ffn.parallel_dense_width
    gate = d if ffn.shared_gate else 0
    return 2.0 * (matrices * d * width + d * ffn.num_experts + gate)
