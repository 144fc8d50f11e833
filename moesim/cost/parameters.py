"""How many parameters one rank of a stage holds, dense and expert apart.

They are apart because they are replicated over different groups: dense weights over dp * cp,
experts over edp, so their gradients and optimizer states are spread differently.
"""

from dataclasses import dataclass

from moesim.cost.pipeline import Chunk
from moesim.model.architecture import (
    Architecture,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    MoeFfn,
    layers_of,
)
from moesim.model.parameters import (
    attention_params,
    embedding_params,
    expert_params,
    ffn_params,
    final_norm_params,
    layer_params,
    lm_head_params,
    norm_params,
    router_params,
    shared_expert_params,
)
from moesim.model.shapes import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class StageParams:
    """Parameters on one rank, by what they are."""

    attention: float = 0.0
    dense_ffn: float = 0.0
    shared_experts: float = 0.0
    routed_experts: float = 0.0
    router_and_norms: float = 0.0
    embeddings: float = 0.0

    @property
    def dense(self) -> float:
        """Everything that every data-parallel rank holds."""
        return self.total - self.routed_experts

    @property
    def total(self) -> float:
        """All parameters of the rank."""
        return (
            self.attention + self.dense_ffn + self.shared_experts + self.routed_experts
            + self.router_and_norms + self.embeddings
        )  # fmt: skip


def stage_params(architecture: Architecture, stage: list[Chunk], shard: Shard) -> StageParams:
    """Return what one rank of a stage holds."""
    parts = [
        rank_layer_params(placed.layer, architecture.hidden, shard)
        for c in stage
        for placed in c.layers
    ]
    last = list(layers_of(architecture.decoder))[-1]
    has_table = any(chunk.has_embedding for chunk in stage)
    for chunk in stage:
        parts += [mtp_params(architecture, last, shard) for _ in range(chunk.mtp_layers)]
        parts.append(end_params(architecture, chunk, shard, has_table=has_table))
    return add(parts)


def add(parts: list[StageParams]) -> StageParams:
    """Return the sum of `parts`."""
    return StageParams(
        attention=sum(p.attention for p in parts),
        dense_ffn=sum(p.dense_ffn for p in parts),
        shared_experts=sum(p.shared_experts for p in parts),
        routed_experts=sum(p.routed_experts for p in parts),
        router_and_norms=sum(p.router_and_norms for p in parts),
        embeddings=sum(p.embeddings for p in parts),
    )


def rank_layer_params(layer: Layer, hidden: int, shard: Shard) -> StageParams:
    """Return what one rank holds of a layer."""
    attention = _attention(layer, hidden, shard)
    whole_attention = attention_params(layer.attention, hidden)
    if layer.cross_attention is not None:
        cross = attention_params(layer.cross_attention, hidden)
        attention += cross / shard.tp
        whole_attention += cross
    ffn = layer.ffn
    rest = layer_params(layer, hidden) - whole_attention - ffn_params(ffn, hidden)
    if not isinstance(ffn, MoeFfn):
        dense = ffn_params(ffn, hidden) / shard.tp
        return StageParams(attention=attention, dense_ffn=dense, router_and_norms=float(rest))
    experts = ffn.num_experts / shard.ep * expert_params(ffn, hidden) / shard.etp
    shared = shared_expert_params(ffn, hidden)
    router = router_params(ffn, hidden)
    routed_whole = ffn.num_experts * expert_params(ffn, hidden)
    beside = ffn_params(ffn, hidden) - routed_whole - shared - router
    return StageParams(
        attention=attention,
        dense_ffn=beside / shard.tp,
        shared_experts=shared / shard.tp,
        routed_experts=experts,
        router_and_norms=float(rest + router),
    )


def _attention(layer: Layer, hidden: int, shard: Shard) -> float:
    """Tensor parallelism cuts the projections; the down projections of MLA stay whole.

    With fewer key/value heads than ranks each rank holds a copy of one.
    """
    attention = layer.attention
    whole = attention_params(attention, hidden)
    if isinstance(attention, GroupedQueryAttention):
        copied = max(0.0, 1 - attention.kv_heads / shard.tp) * attention.head_dim * hidden
        return whole / shard.tp + copied * (1 if attention.shared_key_value else 2)
    if not isinstance(attention, LatentAttention):
        return whole / shard.tp
    down = hidden * (attention.kv_lora_rank + attention.qk_rope_head_dim)
    down += hidden * (attention.q_lora_rank or 0)
    return down + (whole - down) / shard.tp


def mtp_params(architecture: Architecture, last: Layer, shard: Shard) -> StageParams:
    """Return what one rank holds of a multi-token-prediction module.

    One more layer, two norms, and the projection from twice the hidden width.
    """
    hidden = architecture.hidden
    layer = rank_layer_params(last, hidden, shard)
    projection = 2.0 * hidden * hidden / shard.tp
    norms = 3.0 * norm_params(architecture.norm, hidden)
    return add([layer, StageParams(dense_ffn=projection, router_and_norms=norms)])


def copies_embedding(architecture: Architecture) -> bool:
    """Tell whether a last stage apart from the first needs the input embedding too.

    It does where embeddings are tied, and for multi-token prediction. Source: Megatron-LM
    core/distributed/finalize_model_grads.py, _allreduce_word_embedding_grads.
    """
    return architecture.tied_embeddings or architecture.mtp_layers > 0


def end_params(
    architecture: Architecture, chunk: Chunk, shard: Shard, *, has_table: bool = False
) -> StageParams:
    """Return what one rank holds of the ends of the network that lie with a chunk.

    `has_table`: another chunk of the stage holds the embedding, which is then shared, not copied
    (DeepSeek-V3 technical report, arXiv 2412.19437, section 3.2.3).
    """
    tables = 0.0
    if chunk.has_embedding:
        tables += embedding_params(architecture)
    if chunk.has_logits:
        tables += lm_head_params(architecture)
        if not (chunk.has_embedding or has_table) and copies_embedding(architecture):
            tables += embedding_params(architecture)
    norms = final_norm_params(architecture) if chunk.has_logits else 0
    extra = architecture.extra_params if chunk.has_embedding else 0
    return StageParams(embeddings=tables / shard.tp, router_and_norms=float(norms + extra))
