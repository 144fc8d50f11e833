"""From a model in moesim's own YAML to an Architecture."""

from dataclasses import replace

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
    SparseIndexer,
    Stack,
    runs_of,
)
from moesim.spec.model import (
    FfnSpec,
    GroupedQueryAttentionSpec,
    LatentAttentionSpec,
    LinearAttentionSpec,
    ModelSpec,
    MoeSpec,
)


def architecture_from_spec(spec: ModelSpec) -> Architecture:
    """Return the architecture that `spec` describes."""
    return Architecture(
        name=spec.name,
        source=spec.source,
        hidden=spec.hidden,
        vocab=spec.vocab,
        encoder=_stack(spec, spec.encoder_layers, encoder=True),
        decoder=_stack(spec, spec.layers, encoder=False),
        tied_embeddings=spec.tied_embeddings,
        norm=spec.norm,
        lm_head_bias=spec.lm_head_bias,
        extra_params=spec.learned_positions * spec.hidden,
        mtp_layers=spec.mtp_layers,
        weight_dtype=spec.weight_dtype,
    )


def _stack(spec: ModelSpec, layers: int, *, encoder: bool) -> Stack:
    return runs_of([_layer(spec, i, encoder=encoder) for i in range(layers)])


def _layer(spec: ModelSpec, i: int, *, encoder: bool) -> Layer:
    cross = None
    if spec.encoder_layers and not encoder:
        cross = _around(_attention(spec.attention))
    attention = _attention(_attention_of(spec, i))
    return Layer(
        attention=_around(attention) if encoder else attention,
        ffn=_ffn(spec, i),
        cross_attention=cross,
        norms=spec.norms_per_layer + (1 if cross else 0),
        norm=spec.norm,
        extra_params=0 if i else spec.relative_position_buckets * _heads(attention),
    )


def _attention_of(
    spec: ModelSpec, i: int
) -> GroupedQueryAttentionSpec | LatentAttentionSpec | LinearAttentionSpec:
    second = spec.second_attention
    return second.attention if second and (i + 1) % second.every == 0 else spec.attention


def _around(attention: AttentionKind) -> GroupedQueryAttention:
    """Return `attention` as an encoder has it: to both sides."""
    if not isinstance(attention, GroupedQueryAttention):
        raise TypeError("the schema lets only gqa into encoders")
    return replace(attention, causal=False)


def _heads(attention: AttentionKind) -> int:
    return 0 if isinstance(attention, LinearAttention) else attention.heads


def _attention(
    spec: GroupedQueryAttentionSpec | LatentAttentionSpec | LinearAttentionSpec,
) -> AttentionKind:
    fields = spec.model_dump(exclude={"kind", "indexer"})
    if isinstance(spec, GroupedQueryAttentionSpec):
        return GroupedQueryAttention(**fields)
    if isinstance(spec, LinearAttentionSpec):
        return LinearAttention(**fields)
    indexer = SparseIndexer(**spec.indexer.model_dump()) if spec.indexer else None
    return LatentAttention(**fields, indexer=indexer)


def _ffn(spec: ModelSpec, i: int) -> FfnKind:
    after = i - spec.dense_first_layers + 1
    if spec.moe is not None and after > 0 and after % spec.moe_every == 0:
        return _moe(spec.moe)
    if spec.ffn is None:
        raise TypeError("the schema asks for ffn wherever a layer has no experts")
    return _dense(spec.ffn)


def _dense(spec: FfnSpec) -> DenseFfn:
    return DenseFfn(width=spec.width, gated=spec.gated, bias=spec.bias)


def _moe(spec: MoeSpec) -> MoeFfn:
    return MoeFfn(
        num_experts=spec.num_experts,
        top_k=spec.top_k,
        expert_width=spec.expert_width,
        gated=spec.gated,
        expert_bias=spec.expert_bias,
        router_bias=spec.router_bias,
        shared_width=spec.shared_expert_width,
        shared_gate=spec.shared_expert_gate,
        parallel_dense_width=spec.parallel_dense_width,
        groups=spec.groups,
        groups_per_token=spec.groups_per_token,
        group_best=spec.group_best,
        capacity_factor=spec.capacity_factor,
        extra_params=spec.extra_params,
    )
