"""The operators of one attention block, for one rank's share."""

from moesim.model.architecture import (
    AttentionKind,
    GroupedQueryAttention,
    LatentAttention,
    LinearAttention,
    SparseIndexer,
)
from moesim.model.context import over_ranks
from moesim.model.latent_rope import latent_rope
from moesim.model.operators import (
    AttentionCore,
    Gemm,
    LinearAttentionCore,
    Operator,
    Pointwise,
)
from moesim.model.shapes import (
    Shape,
    Shard,
    causal_pairs,
    local_tokens,
    sequence_shard_tokens,
)


def attention_operators(
    attention: AttentionKind, hidden: int, shape: Shape, shard: Shard
) -> list[Operator]:
    """Return the operators from the normed input to the output projection."""
    match attention:
        case GroupedQueryAttention():
            return _grouped_query(attention, hidden, shape, shard)
        case LatentAttention():
            return _latent(attention, hidden, shape, shard)
        case LinearAttention():
            return _linear(attention, hidden, shape, shard)


def _gemm(
    name: str,
    module: str,
    source: str,
    shape: tuple[int, int, int],
    dtype: str,
    kept: float = 1.0,
) -> Gemm:
    m, n, k = shape
    return Gemm(
        name=name, module=module, input_from=source, m=m, n=n, k=k, dtype=dtype, input_share=kept
    )


def _per_rank(heads: int, tp: int) -> int:
    return max(1, heads // tp)  # fewer heads than ranks: each rank keeps a copy


def _grouped_query(
    attention: GroupedQueryAttention, hidden: int, shape: Shape, shard: Shard
) -> list[Operator]:
    tokens = local_tokens(shape, shard)
    heads = _per_rank(attention.heads, shard.tp)
    kv_heads = _per_rank(attention.kv_heads, shard.tp)
    q_width = heads * attention.head_dim
    kv_width = kv_heads * attention.head_dim
    q_out = q_width * (2 if attention.output_gate else 1)
    kv_out = kv_width * (1 if attention.shared_key_value else 2)
    length = shape.length
    pairs = causal_pairs(length, attention.window) if attention.causal else float(length * length)
    core = AttentionCore(
        name="attention", module="core_attn", input_from="qkv",
        sequences=shape.sequences, queries=tokens,
        keys=shape.sequences * length, own_keys=tokens,
        pairs=shape.sequences * pairs / shard.cp, heads=heads, kv_heads=kv_heads,
        qk_dim=attention.head_dim, v_dim=attention.head_dim, dtype=shard.wide,
        fused=shard.fused_attention, wide_scores=shard.wide_scores,
    )  # fmt: skip
    return [
        _gemm(
            "qkv_projection", "qkv", "layernorm", (tokens, q_out + kv_out, hidden), shard.dtype,
            shard.gathered_share,
        ),
        Pointwise(
            name="rope", module="qkv", input_from="qkv", rows=float(tokens),
            elements_read=tokens * (q_width + kv_width),
            elements_written=tokens * (q_width + kv_width), elements_saved=0.0, dtype=shard.wide,
        ),
        *over_ranks(core, 2 * kv_width, shape, shard, sees_all=attention.window is None),
        _gemm("output_projection", "proj", "core_attn", (tokens, hidden, q_width), shard.dtype),
    ]  # fmt: skip


def entry_width(attention: AttentionKind, hidden: int) -> int:
    """Return the width that sequence parallelism gathers before the projections that tp cuts.

    MLA gathers its low-rank vectors: the projections down to them run on the sequence shard.
    """
    if not isinstance(attention, LatentAttention):
        return hidden
    latent = attention.kv_lora_rank + attention.qk_rope_head_dim
    indexed = attention.indexer.head_dim + attention.indexer.heads if attention.indexer else 0
    return (attention.q_lora_rank or hidden) + latent + indexed


def cross_attention_operators(
    attention: GroupedQueryAttention, hidden: int, shape: Shape, shard: Shard
) -> list[Operator]:
    """Return the operators of attention from decoder tokens over the encoder's output."""
    tokens = local_tokens(shape, shard)
    memory = shape.sequences * shape.memory_length
    heads = _per_rank(attention.heads, shard.tp)
    kv_heads = _per_rank(attention.kv_heads, shard.tp)
    q_width, kv_width = heads * attention.head_dim, kv_heads * attention.head_dim
    pairs = float(shape.sequences * shape.length * shape.memory_length)
    return [
        _gemm(
            "cross_q_projection", "qkv", "layernorm", (tokens, q_width, hidden), shard.dtype,
            shard.gathered_share,
        ),
        # the encoder's output is kept once for all decoder layers: see layers.encoder_end
        _gemm(
            "cross_kv_projection", "qkv", "encoder", (memory, 2 * kv_width, hidden), shard.dtype,
            0.0,
        ),
        AttentionCore(
            name="cross_attention", module="core_attn", input_from="qkv",
            sequences=shape.sequences, queries=tokens,
            keys=memory, own_keys=memory, pairs=pairs, heads=heads, kv_heads=kv_heads,
            qk_dim=attention.head_dim, v_dim=attention.head_dim,
            dtype=shard.wide, fused=shard.fused_attention, wide_scores=shard.wide_scores,
        ),
        _gemm("cross_projection", "proj", "core_attn", (tokens, hidden, q_width), shard.dtype),
    ]  # fmt: skip


def _latent(attention: LatentAttention, hidden: int, shape: Shape, shard: Shard) -> list[Operator]:
    tokens, dtype = local_tokens(shape, shard), shard.dtype
    heads = _per_rank(attention.heads, shard.tp)
    qk_dim = attention.qk_nope_head_dim + attention.qk_rope_head_dim
    latent = attention.kv_lora_rank + attention.qk_rope_head_dim
    expanded = heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    rank = attention.q_lora_rank
    # the down projections are replicated over tensor parallel ranks, on the sequence shard
    down_tokens = sequence_shard_tokens(shape, shard)
    down = (down_tokens, (rank or 0) + latent, hidden)
    query = (tokens, heads * qk_dim, rank or hidden)
    value_width = heads * attention.v_head_dim
    up_module, up_source = ("mla_up_proj", "qkv") if rank else ("qkv", "layernorm")
    # without a low rank the query reads what the down projection keeps already
    query_share = shard.gathered_share if rank else 0.0
    return [
        _gemm("qkv_down_projection", "qkv", "layernorm", down, dtype),
        _gemm("q_up_projection", up_module, up_source, query, dtype, query_share),
        _gemm(
            "kv_up_projection", "mla_up_proj", "qkv", (tokens, expanded, attention.kv_lora_rank),
            dtype, shard.gathered_share,
        ),
        latent_rope(attention, tokens, heads, shard.wide),
        *_latent_core(attention, qk_dim, hidden, shape, shard),
        _gemm("output_projection", "proj", "core_attn", (tokens, hidden, value_width), dtype),
    ]  # fmt: skip


def _latent_core(
    attention: LatentAttention, qk_dim: int, hidden: int, shape: Shape, shard: Shard
) -> list[Operator]:
    """Attention over all keys or, behind a sparse indexer, over the top_k it chooses."""
    heads = _per_rank(attention.heads, shard.tp)
    indexer = attention.indexer
    seen = indexer.top_k if indexer else None
    core = AttentionCore(
        name="attention", module="core_attn", input_from="mla_up_proj",
        sequences=shape.sequences, queries=local_tokens(shape, shard),
        keys=shape.sequences * shape.length,
        own_keys=local_tokens(shape, shard),
        pairs=shape.sequences * causal_pairs(shape.length, seen) / shard.cp,
        heads=heads, kv_heads=heads, qk_dim=qk_dim, v_dim=attention.v_head_dim, dtype=shard.wide,
        fused=shard.fused_attention, wide_scores=shard.wide_scores,
    )  # fmt: skip
    expanded = heads * (qk_dim + attention.v_head_dim)
    if indexer is None:
        return over_ranks(core, expanded, shape, shard, sees_all=True)
    *moved, last = over_ranks(core, expanded + indexer.head_dim, shape, shard, sees_all=False)
    indexing = _indexer(indexer, attention.q_lora_rank or hidden, hidden, shape, shard)
    return [*moved, *indexing, last]


def _indexer(
    indexer: SparseIndexer, query_from: int, hidden: int, shape: Shape, shard: Shard
) -> list[Operator]:
    """Every pair is scored by the indexer's small heads, which tensor parallelism does not cut.

    Source: DeepSeek-V3.2 technical report, section 2.1, equation 1.
    """
    tokens, dtype = local_tokens(shape, shard), shard.dtype
    width = indexer.heads * indexer.head_dim
    return [
        _gemm("indexer_q_projection", "qkv", "layernorm", (tokens, width, query_from), dtype, 0.0),
        _gemm(
            "indexer_k_projection", "qkv", "layernorm",
            (sequence_shard_tokens(shape, shard), indexer.head_dim + indexer.heads, hidden),
            dtype, 0.0,
        ),
        AttentionCore(
            name="indexer", module="core_attn", input_from="qkv",
            sequences=shape.sequences, queries=tokens,
            keys=shape.sequences * shape.length, own_keys=tokens,
            pairs=shape.sequences * causal_pairs(shape.length) / shard.cp,
            heads=indexer.heads, kv_heads=1, qk_dim=indexer.head_dim, v_dim=0,
            dtype=dtype,
        ),
    ]  # fmt: skip


def _linear(attention: LinearAttention, hidden: int, shape: Shape, shard: Shard) -> list[Operator]:
    tokens, dtype = local_tokens(shape, shard), shard.dtype
    key_width = attention.key_heads * attention.key_head_dim // shard.tp
    value_heads = _per_rank(attention.value_heads, shard.tp)
    value_width = value_heads * attention.value_head_dim
    mixed = 2 * key_width + value_width
    into = (tokens, mixed + value_width, hidden)
    operators: list[Operator] = [
        _gemm("linear_projection", "qkv", "layernorm", into, dtype, shard.gathered_share)
    ]
    gated = attention.rule == "gated_delta"
    if gated:
        gates = (tokens, 2 * value_heads, hidden)
        operators.append(_gemm("linear_gate_projection", "qkv", "layernorm", gates, dtype, 0.0))
    if attention.conv_kernel:
        elements = float(tokens * mixed)
        operators.append(
            Pointwise(
                name="short_convolution", module="qkv", input_from="qkv", rows=float(tokens),
                elements_read=elements, elements_written=elements, elements_saved=elements,
                dtype=shard.wide,
            )
        )  # fmt: skip
    return [
        *operators,
        LinearAttentionCore(
            name="linear_attention", module="core_attn", input_from="qkv",
            sequences=shape.sequences, tokens=tokens, heads=value_heads,
            key_dim=attention.key_head_dim, value_dim=attention.value_head_dim,
            dtype=shard.wide, products=3 if gated else 2,
        ),
        _gemm("output_projection", "proj", "core_attn", (tokens, hidden, value_width), dtype),
    ]  # fmt: skip
