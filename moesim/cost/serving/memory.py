"""What lies in the memory of the devices of a replica: weights by component, cache by token."""

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from moesim.cost.families.number_types import NUMBER_TYPES
from moesim.cost.parameters import StageParams, add, mtp_params, rank_layer_params
from moesim.cost.serving.attention import cache_bytes_per_token
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.residence import resident_share
from moesim.model.architecture import (
    Architecture,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    LinearAttention,
    MoeFfn,
    layers_of,
)
from moesim.model.parameters import embedding_params, final_norm_params
from moesim.model.shapes import Shard

_WIDE = 2.0
"""Bytes of norms, routers and embedding tables, which engines leave in 16 bits."""

_INDEX_SCALE_BYTES = 4.0
"""Scale beside the index keys of a token, fp8 each (DeepSeek-V3.2 in vLLM, from memory,
unchecked)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Bytes of weights on one device, by component."""

    attention: float
    dense: float
    """Dense networks, shared experts, routers and norms."""
    experts: float
    embeddings: float
    drafts: float = 0.0
    """Module or model that drafts tokens."""

    @property
    def total(self) -> float:
        """All of them."""
        return self.attention + self.dense + self.experts + self.embeddings + self.drafts


def weights(on: Deployment) -> Weights:
    """Return the weights on a device of the fullest pipeline stage; see `stage_weights`."""
    return max(stage_weights(on), key=lambda one: one.total)


def stage_weights(on: Deployment) -> list[Weights]:
    """Return the weights on one device of each pipeline stage.

    Fewer key/value heads than tp ranks are copied, the down projections of latent attention are on
    every rank, experts are spread over ep and cut by the rest, redundant ones on top. The
    embedding lies on the first stage, the head on the last, which holds the table again where both
    are tied; both are cut by tp. An encoder lies on the first stage.
    """
    architecture = on.architecture
    shard = Shard(tp=on.cut.tp, ep=on.cut.ep, etp=on.cut.expert_tp)
    layers = list(layers_of(architecture.decoder))
    encoder = list(layers_of(architecture.encoder))
    found = []
    for number, (first, after) in enumerate(pairwise([0, *accumulate(stage_layers(on))])):
        here = layers[first:after] + (encoder if number == 0 else [])
        params = add([rank_layer_params(layer, architecture.hidden, shard) for layer in here])
        if on.cut.ffn:
            params = replace(params, dense_ffn=0, shared_experts=0, routed_experts=0)
            found.append(_bytes(params, 0.0, _ends(number, on), on))
            continue
        redundant = sum(_redundant(layer, shard, on) for layer in here)
        found.append(_bytes(params, redundant, _ends(number, on), on))
    if on.drafting is not None:
        found[-1] = _with_drafts(found[-1], shard, on)
    return found


def ffn_weights(on: Deployment) -> Weights:
    """Return the weights on one of the devices that hold feed-forward networks alone.

    Its experts, and dense networks and shared experts whole, as each takes a share of all tokens.
    """
    architecture, shard = on.architecture, Shard(ep=on.cut.ep, etp=on.cut.expert_tp)
    layers = list(layers_of(architecture.decoder))
    params = add([rank_layer_params(layer, architecture.hidden, shard) for layer in layers])
    redundant = sum(_redundant(layer, shard, on) for layer in layers)
    return _bytes(replace(params, attention=0, router_and_norms=0), redundant, 0.0, on)


def stage_layers(on: Deployment) -> list[int]:
    """Return the decoder layers of each pipeline stage.

    What does not come out even goes one layer each to the stages before the last, from the back
    (vLLM, distributed/utils.py, get_pp_indices; from memory, unchecked).
    """
    stages = on.cut.pp
    each, rest = divmod(len(list(layers_of(on.architecture.decoder))), stages)
    return [each + (stages - 1 - rest <= number < stages - 1) for number in range(stages)]


def _size(number: str) -> float:
    return NUMBER_TYPES[number].weight_bytes


def _redundant(layer: Layer, shard: Shard, on: Deployment) -> float:
    """Return the parameters of copies of experts on one rank."""
    ffn = layer.ffn
    if not isinstance(ffn, MoeFfn) or not on.cut.redundant_experts:
        return 0.0
    own = rank_layer_params(layer, on.architecture.hidden, shard).routed_experts
    return own * on.cut.redundant_experts / ffn.num_experts


def _bytes(params: StageParams, redundant: float, ends: float, on: Deployment) -> Weights:
    formats = on.formats
    routed = (params.routed_experts + redundant) * resident_share(on)
    return Weights(
        attention=_size(formats.attention) * params.attention,
        dense=_size(formats.dense) * (params.dense_ffn + params.shared_experts)
        + _WIDE * params.router_and_norms,
        experts=_size(formats.experts) * routed,
        embeddings=ends,
    )


def _ends(stage: int, on: Deployment) -> float:
    """Return the bytes of embedding, head, last norms and learned positions on a stage."""
    architecture, last = on.architecture, on.cut.pp - 1
    table = float(embedding_params(architecture))
    total = 0.0
    if stage == 0:
        total += _WIDE * (table / on.cut.tp + architecture.extra_params)
    if stage == last:
        if not architecture.tied_embeddings:
            total += _size(on.formats.head) * table / on.cut.tp
        elif last:
            total += _WIDE * table / on.cut.tp
        total += _WIDE * final_norm_params(architecture)
    return total


def _with_drafts(last: Weights, shard: Shard, on: Deployment) -> Weights:
    """Return the last stage with what drafts tokens there.

    A module for multi-token prediction shares embedding and head with the model; of a draft model
    every rank of the stage holds its share.
    """
    drafting = on.drafting
    assert drafting is not None
    if drafting.model is not None:
        size = sum(one.total for one in stage_weights(drafting.model))
    else:
        layer = list(layers_of(on.architecture.decoder))[-1]
        size = _bytes(mtp_params(on.architecture, layer, shard), 0.0, 0.0, on).total
    return Weights(
        attention=last.attention, dense=last.dense, experts=last.experts,
        embeddings=last.embeddings, drafts=size,
    )  # fmt: skip


def cache_bytes(architecture: Architecture, on: Deployment) -> float:
    """Return the bytes of cache of one more token on a device of the fullest stage."""
    del architecture
    return max(stage_cache_bytes(on))


def stage_cache_bytes(on: Deployment) -> list[float]:
    """Return the bytes of cache of one more token on one device of each pipeline stage.

    Layers that look back on a window only count in full: engines keep their blocks in one pool
    (an upper bound for sequences longer than the window). Fewer key/value heads than tp ranks are
    copied, and latent vectors lie on every rank, but where decode context parallel ranks spread
    tokens. What drafts tokens has a cache of its own.
    """
    kinds = [layer.attention for layer in layers_of(on.architecture.decoder)]
    ends = list(accumulate(stage_layers(on)))
    found = [
        sum(_layer_cache(kind, on) for kind in kinds[first:after]) / on.cut.dcp
        for first, after in pairwise([0, *ends])
    ]
    if on.drafting is not None:
        model = on.drafting.model
        found[-1] += sum(stage_cache_bytes(model)) if model else _layer_cache(kinds[-1], on)
    return found


def _layer_cache(
    kind: GroupedQueryAttention | LatentAttention | LinearAttention, on: Deployment
) -> float:
    if isinstance(kind, LinearAttention):
        return 0.0
    index = 0.0
    if isinstance(kind, LatentAttention) and kind.indexer is not None:
        index = kind.indexer.head_dim + _INDEX_SCALE_BYTES
    return cache_bytes_per_token(kind, on) + index


def state_bytes(on: Deployment) -> float:
    """Return the bytes of linear-attention states of one sequence on a device, all its layers.

    Per layer the state, value heads * key width * value width, and the last inputs of the
    convolution, (taps - 1) * (2 key widths + value width), cut by tp; both in 16 bits (vLLM's
    mamba_cache_dtype auto; from memory, unchecked).
    """
    total = 0.0
    for layer in layers_of(on.architecture.decoder):
        kind = layer.attention
        if isinstance(kind, LinearAttention):
            width = 2 * kind.key_heads * kind.key_head_dim + kind.value_heads * kind.value_head_dim
            held = kind.value_heads * kind.key_head_dim * kind.value_head_dim
            total += _WIDE * (held + max(0, kind.conv_kernel - 1) * width) / on.cut.tp
    return total / on.cut.pp
