"""The operators of one attention block, for one rank's share."""

from moesim.model.architecture import (
    AttentionKind,
    GroupedQueryAttention,
    LatentAttention,
    LinearAttention,
)
from moesim.model.operators import (
    AttentionCore,
    Collective,
    Gemm,
    LinearAttentionCore,
    Operator,
    Pointwise,
)
from moesim.model.shapes import Shape, Shard, causal_pairs, local_tokens


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


def _gemm(name: str, module: str, source: str, m: int, n: int, k: int, dtype: str) -> Gemm:
    return Gemm(name=name, module=module, input_from=source, m=m, n=n, k=k, dtype=dtype)


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
    return [
        _gemm("qkv_projection", "qkv", "layernorm", tokens, q_out + kv_out, hidden, shard.dtype),
        Pointwise(
            name="rope", module="qkv", input_from="qkv",
            elements_read=tokens * (q_width + kv_width),
            elements_written=tokens * (q_width + kv_width), elements_saved=0.0,
        ),
        *_gather_context(2 * kv_width, shape, shard),
        AttentionCore(
            name="attention", module="core_attn", input_from="qkv", queries=tokens,
            keys=shape.sequences * length, pairs=shape.sequences * pairs / shard.cp, heads=heads,
            kv_heads=kv_heads, qk_dim=attention.head_dim, v_dim=attention.head_dim, dtype="bf16",
        ),
        _gemm("output_projection", "proj", "core_attn", tokens, hidden, q_width, shard.dtype),
    ]  # fmt: skip


def cross_attention_operators(
    attention: GroupedQueryAttention, hidden: int, shape: Shape, shard: Shard
) -> list[Operator]:
    """Return the operators of attention from decoder tokens over the encoder's output."""
    tokens = local_tokens(shape, shard)
    memory = shape.sequences * shape.memory_length // shard.cp
    heads = _per_rank(attention.heads, shard.tp)
    kv_heads = _per_rank(attention.kv_heads, shard.tp)
    q_width, kv_width = heads * attention.head_dim, kv_heads * attention.head_dim
    pairs = float(shape.sequences * shape.length * shape.memory_length) / shard.cp
    return [
        _gemm("cross_q_projection", "qkv", "layernorm", tokens, q_width, hidden, shard.dtype),
        _gemm("cross_kv_projection", "qkv", "encoder", memory, 2 * kv_width, hidden, shard.dtype),
        AttentionCore(
            name="cross_attention", module="core_attn", input_from="qkv", queries=tokens,
            keys=memory * shard.cp, pairs=pairs, heads=heads, kv_heads=kv_heads,
            qk_dim=attention.head_dim, v_dim=attention.head_dim, dtype="bf16",
        ),
        _gemm("cross_output_projection", "proj", "core_attn", tokens, hidden, q_width, shard.dtype),
    ]  # fmt: skip


def _gather_context(kv_elements_per_token: int, shape: Shape, shard: Shard) -> list[Operator]:
    if shard.cp == 1:
        return []
    payload = 2.0 * shape.sequences * shape.length * kv_elements_per_token
    return [
        Collective(
            name="cp_all_gather", module="core_attn", kind="all_gather", group="cp",
            payload_bytes=payload,
        )
    ]  # fmt: skip


def _latent(attention: LatentAttention, hidden: int, shape: Shape, shard: Shard) -> list[Operator]:
    tokens, dtype = local_tokens(shape, shard), shard.dtype
    heads = _per_rank(attention.heads, shard.tp)
    qk_dim = attention.qk_nope_head_dim + attention.qk_rope_head_dim
    latent = attention.kv_lora_rank + attention.qk_rope_head_dim
    expanded = heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    operators: list[Operator] = []
    if attention.q_lora_rank is None:
        operators.append(
            _gemm("q_projection", "qkv", "layernorm", tokens, heads * qk_dim, hidden, dtype)
        )
        down_width = latent
    else:
        down_width = attention.q_lora_rank + latent
    # the down projections are replicated over tensor parallel ranks, on the sequence shard
    down_tokens = tokens // shard.tp if shard.sequence_parallel else tokens
    operators.append(
        _gemm(
            "qkv_down_projection",
            "qkv",
            "layernorm",
            max(1, down_tokens),
            down_width,
            hidden,
            dtype,
        )
    )
    if attention.q_lora_rank is not None:
        operators.append(
            _gemm("q_up_projection", "mla_up_proj", "layernorm", tokens, heads * qk_dim,
                  attention.q_lora_rank, dtype)
        )  # fmt: skip
    operators.append(
        _gemm("kv_up_projection", "mla_up_proj", "layernorm", tokens, expanded,
              attention.kv_lora_rank, dtype)
    )  # fmt: skip
    return [
        *operators,
        *_gather_context(latent, shape, shard),
        *_latent_core(attention, heads, qk_dim, shape, shard),
        _gemm("output_projection", "proj", "core_attn", tokens, hidden,
              heads * attention.v_head_dim, dtype),
    ]  # fmt: skip


def _latent_core(
    attention: LatentAttention, heads: int, qk_dim: int, shape: Shape, shard: Shard
) -> list[Operator]:
    tokens = local_tokens(shape, shard)
    keys = shape.sequences * shape.length
    pairs = shape.sequences * causal_pairs(shape.length) / shard.cp
    core = AttentionCore(
        name="attention", module="core_attn", input_from="mla_up_proj", queries=tokens, keys=keys,
        pairs=pairs, heads=heads, kv_heads=heads, qk_dim=qk_dim, v_dim=attention.v_head_dim,
        dtype="bf16",
    )  # fmt: skip
    indexer = attention.indexer
    if indexer is None:
        return [core]
    # every pair is scored by the small heads; the main heads then see top_k keys per query
    return [
        AttentionCore(
            name="indexer", module="core_attn", input_from="qkv", queries=tokens, keys=keys,
            pairs=pairs, heads=indexer.heads, kv_heads=1, qk_dim=indexer.head_dim, v_dim=0,
            dtype=shard.dtype,
        ),
        AttentionCore(
            name="attention", module="core_attn", input_from="mla_up_proj", queries=tokens,
            keys=keys, heads=heads, kv_heads=heads, qk_dim=qk_dim, v_dim=attention.v_head_dim,
            dtype="bf16",
            pairs=shape.sequences * causal_pairs(shape.length, indexer.top_k) / shard.cp,
        ),
    ]  # fmt: skip


def _linear(attention: LinearAttention, hidden: int, shape: Shape, shard: Shard) -> list[Operator]:
    tokens, dtype = local_tokens(shape, shard), shard.dtype
    key_width = attention.key_heads * attention.key_head_dim // shard.tp
    value_heads = _per_rank(attention.value_heads, shard.tp)
    value_width = value_heads * attention.value_head_dim
    mixed = 2 * key_width + value_width
    return [
        _gemm("linear_qkvz_projection", "qkv", "layernorm", tokens, mixed + value_width, hidden, dtype),
        _gemm("linear_gate_projection", "qkv", "layernorm", tokens, 2 * value_heads, hidden, dtype),
        Pointwise(
            name="short_convolution", module="qkv", input_from="qkv",
            elements_read=tokens * mixed, elements_written=tokens * mixed,
            elements_saved=tokens * mixed,
        ),
        LinearAttentionCore(
            name="gated_delta_rule", module="core_attn", input_from="qkv", tokens=tokens,
            heads=value_heads, key_dim=attention.key_head_dim,
            value_dim=attention.value_head_dim, dtype="bf16",
        ),
        _gemm("output_projection", "proj", "core_attn", tokens, hidden, value_width, dtype),
    ]  # fmt: skip
