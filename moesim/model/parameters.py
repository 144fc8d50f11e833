"""How many parameters a network and each of its parts has, exactly.

Multi-token-prediction modules are never counted: published totals leave them out.
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
    MoeFfn,
    Norm,
    Run,
)


def total_params(architecture: Architecture) -> int:
    """Return all parameters: embeddings, layers, final norms and the output projection."""
    layers = sum(
        run.count * layer_params(run.layer, architecture.hidden) for run in _runs(architecture)
    )
    return (
        embedding_params(architecture)
        + lm_head_params(architecture)
        + layers
        + final_norm_params(architecture)
        + architecture.extra_params
    )


def routed_expert_params(architecture: Architecture) -> int:
    """Return the parameters of all routed experts; shared experts are not among them."""
    return sum(
        run.count * run.layer.ffn.num_experts * expert_params(run.layer.ffn, architecture.hidden)
        for run in _runs(architecture)
        if isinstance(run.layer.ffn, MoeFfn)
    )


def active_params(architecture: Architecture) -> int:
    """Return the parameters that one token meets, both embedding tables included.

    active = total - routed + routed * top_k / num_experts
    """
    used = sum(
        run.count * run.layer.ffn.top_k * expert_params(run.layer.ffn, architecture.hidden)
        for run in _runs(architecture)
        if isinstance(run.layer.ffn, MoeFfn)
    )
    return total_params(architecture) - routed_expert_params(architecture) + used


def embedding_params(architecture: Architecture) -> int:
    """Return the size of the input look-up table."""
    return architecture.vocab * architecture.hidden


def lm_head_params(architecture: Architecture) -> int:
    """Return what the output projection adds: nothing but its bias where embeddings are tied."""
    table = 0 if architecture.tied_embeddings else architecture.vocab * architecture.hidden
    return table + (architecture.vocab if architecture.lm_head_bias else 0)


def final_norm_params(architecture: Architecture) -> int:
    """Return the norms after the last layer of the decoder and, if there is one, the encoder."""
    stacks = 2 if architecture.encoder else 1
    return stacks * norm_params(architecture.norm, architecture.hidden)


def layer_params(layer: Layer, hidden: int) -> int:
    """Return all parameters of one layer, every routed expert included."""
    cross = attention_params(layer.cross_attention, hidden) if layer.cross_attention else 0
    return (
        attention_params(layer.attention, hidden)
        + cross
        + ffn_params(layer.ffn, hidden)
        + layer.norms * norm_params(layer.norm, hidden)
        + layer.extra_params
    )


def norm_params(norm: Norm, hidden: int) -> int:
    """Return the parameters of one normalisation over the hidden width."""
    return {"rms": 1, "layer": 2}[norm] * hidden


def attention_params(attention: AttentionKind, hidden: int) -> int:
    """Return the projections, biases and inner norms of one attention block."""
    if isinstance(attention, GroupedQueryAttention):
        return _gqa_params(attention, hidden)
    if isinstance(attention, LatentAttention):
        return _latent_params(attention, hidden)
    return _linear_params(attention, hidden)


def ffn_params(ffn: FfnKind, hidden: int) -> int:
    """Return all parameters of a feed-forward block, every routed expert included."""
    if isinstance(ffn, DenseFfn):
        return _mlp_params(hidden, ffn.width, gated=ffn.gated, bias=ffn.bias)
    return ffn.num_experts * expert_params(ffn, hidden) + ffn_unrouted_params(ffn, hidden)


def ffn_unrouted_params(ffn: FfnKind, hidden: int) -> int:
    """Return what every token meets: the dense FFN, or router, shared and parallel experts."""
    if isinstance(ffn, DenseFfn):
        return ffn_params(ffn, hidden)
    return (
        router_params(ffn, hidden)
        + shared_expert_params(ffn, hidden)
        + _mlp_params(hidden, ffn.parallel_dense_width, gated=ffn.gated, bias=False)
        + ffn.extra_params
    )


def expert_params(ffn: MoeFfn, hidden: int) -> int:
    """Return the parameters of one routed expert."""
    return _mlp_params(hidden, ffn.expert_width, gated=ffn.gated, bias=ffn.expert_bias)


def router_params(ffn: MoeFfn, hidden: int) -> int:
    """Return the parameters of the router."""
    return ffn.num_experts * (hidden + (1 if ffn.router_bias else 0))


def shared_expert_params(ffn: MoeFfn, hidden: int) -> int:
    """Return the parameters of the shared experts together, and of their gate."""
    gate = hidden if ffn.shared_gate else 0
    return _mlp_params(hidden, ffn.shared_width, gated=ffn.gated, bias=False) + gate


def _runs(architecture: Architecture) -> tuple[Run, ...]:
    return (*architecture.encoder, *architecture.decoder)


def _mlp_params(hidden: int, width: int, *, gated: bool, bias: bool) -> int:
    into = 2 if gated else 1
    biases = into * width + hidden if bias else 0
    return (into + 1) * hidden * width + biases


def _gqa_params(attention: GroupedQueryAttention, hidden: int) -> int:
    heads, keys = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    query = heads * (2 if attention.output_gate else 1)
    into = query + keys * (1 if attention.shared_key_value else 2)
    biases = (into if attention.qkv_bias else 0) + (hidden if attention.output_bias else 0)
    norms = {"none": 0, "per_head": 2 * attention.head_dim, "per_layer": heads + keys}
    sinks = attention.heads if attention.sinks else 0
    return hidden * (into + heads) + biases + norms[attention.qk_norm] + sinks


def _latent_params(attention: LatentAttention, hidden: int) -> int:
    query = attention.heads * (attention.qk_nope_head_dim + attention.qk_rope_head_dim)
    value = attention.heads * attention.v_head_dim
    rank = attention.kv_lora_rank
    down = rank + attention.qk_rope_head_dim
    params = hidden * down + rank + rank * (attention.heads * attention.qk_nope_head_dim + value)
    params += value * hidden
    if attention.q_lora_rank is None:
        params += hidden * query
    else:
        params += attention.q_lora_rank * (hidden + 1 + query)  # 1: the norm on the low rank
    if attention.bias:
        params += (attention.q_lora_rank or 0) + down + hidden
    return params + _indexer_params(attention, hidden)


def _indexer_params(attention: LatentAttention, hidden: int) -> int:
    indexer = attention.indexer
    if indexer is None:
        return 0
    query = (attention.q_lora_rank or hidden) * indexer.heads * indexer.head_dim
    key = hidden * indexer.head_dim + norm_params("layer", indexer.head_dim)
    return query + key + hidden * indexer.heads


def _linear_params(attention: LinearAttention, hidden: int) -> int:
    key = attention.key_heads * attention.key_head_dim
    value = attention.value_heads * attention.value_head_dim
    projections = hidden * (2 * key + 2 * value) + value * hidden  # the second value is a gate
    convolution = (2 * key + value) * attention.conv_kernel
    if attention.rule == "lightning":
        return projections + convolution + value  # the norm spans all heads
    # Two gates per value head: their projections, a bias and a decay, and a norm per head.
    gates = 2 * attention.value_heads * (hidden + 1)
    return projections + convolution + gates + attention.value_head_dim
