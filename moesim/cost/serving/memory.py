"""What lies in the memory of the fullest device of a replica: weights, cache, reserve."""

from dataclasses import dataclass

from moesim.cost.families.number_types import NUMBER_TYPES
from moesim.cost.serving.attention import cache_bytes_per_token
from moesim.cost.serving.deployment import Deployment
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
    lm_head_params,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Bytes of weights on one device, by component."""

    attention: float
    dense: float
    experts: float
    embeddings: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.attention + self.dense + self.experts + self.embeddings


def weights(on: Deployment) -> Weights:
    """Return the weights on one device; all experts lie in memory, spread over ep and tp.

    Layers are spread evenly over pipeline stages; embedding and head, cut by tp, lie on the
    fullest one together.
    """
    cut, architecture = on.cut, on.architecture
    each = [_of_layer(layer, architecture.hidden, on) for layer in layers_of(architecture.decoder)]
    attention, dense, experts = (sum(column) / cut.pp for column in zip(*each, strict=True))
    tables = embedding_params(architecture) + lm_head_params(architecture)
    return Weights(
        attention=attention, dense=dense, experts=experts,
        embeddings=_size(on.formats.head) * tables / cut.tp,
    )  # fmt: skip


def _size(number: str) -> float:
    return NUMBER_TYPES[number].weight_bytes


def _of_layer(layer: Layer, hidden: int, on: Deployment) -> tuple[float, float, float]:
    formats, cut, ffn = on.formats, on.cut, layer.ffn
    attention = _size(formats.attention) * attention_params(layer.attention, hidden) / cut.tp
    if not isinstance(ffn, MoeFfn):
        return attention, _size(formats.dense) * ffn_params(ffn, hidden) / cut.tp, 0.0
    routed = ffn.num_experts * expert_params(ffn, hidden)
    beside = ffn_params(ffn, hidden) - routed
    return (
        attention,
        _size(formats.dense) * beside / cut.tp,
        _size(formats.experts) * routed / (cut.ep * cut.expert_tp),
    )


def cache_bytes(architecture: Architecture, on: Deployment) -> float:
    """Return the bytes of cache of one more token on one device.

    Layers that look back on a window only count in full: engines keep their blocks (an upper
    bound for sequences longer than the window).
    """
    kinds = (layer.attention for layer in layers_of(architecture.decoder))
    return sum(
        cache_bytes_per_token(kind, on)
        for kind in kinds
        if isinstance(kind, GroupedQueryAttention | LatentAttention)
    ) / on.cut.pp  # fmt: skip
