"""Experts that wait outside device memory: what a layer's misses take.

A layer of E experts, R of them on the devices, is asked for D distinct ones by a batch; a share h
of those is there. What is missing is fetched,

    fetch_s = D (1 - h) expert_bytes / link_bytes_per_s,

one link per device, or computed where it lies: the slower of the host's FLOP and its memory, plus
the tokens' way there and back. A share f of the misses is guessed a layer ahead and fetched beside
that layer, so it costs what exceeds it: (1 - f) fetch_s + max(0, f fetch_s - layer_s).
(MoE-Infinity, arXiv 2401.14361; Mixtral offloading, arXiv 2312.17238; Fiddler, arXiv 2402.07033.)
"""

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.families.number_types import NUMBER_TYPES
from moesim.cost.serving.deployment import Deployment, Offload
from moesim.model.architecture import Layer, MoeFfn
from moesim.model.parameters import expert_params
from moesim.moe.touched import uniform

_WIDE = 2.0


def offload_s(layer: Layer, tokens: Array, layer_s: Array, on: Deployment) -> Array:
    """Return what missing experts add to a layer that takes `layer_s` at these numbers of tokens.

    Tokens are those of all attention groups together.
    """
    ffn, rule = layer.ffn, on.offload
    if rule is None or not isinstance(ffn, MoeFfn) or rule.resident_experts >= ffn.num_experts:
        return np.zeros_like(tokens)
    missing = missing_experts(tokens, ffn, rule)
    if rule.host_flop_per_s is not None:
        return _on_host_s(missing, tokens, ffn, rule, on)
    devices = on.cut.ep * on.cut.expert_tp
    fetch = missing * expert_bytes(ffn, on) / (devices * rule.link_bytes_per_s)
    ahead = rule.prefetch * fetch
    return fetch - ahead + np.maximum(0.0, ahead - layer_s)


def expert_bytes(ffn: MoeFfn, on: Deployment) -> float:
    """Return the bytes of one expert's weights."""
    size = NUMBER_TYPES[on.formats.experts].weight_bytes
    return size * expert_params(ffn, on.architecture.hidden)


def missing_experts(tokens: Array, ffn: MoeFfn, rule: Offload) -> Array:
    """Return the distinct experts of a batch that are not on the devices, by uniform choice.

    Which cache it is makes no difference where all experts are asked for alike: R / E of what a
    batch asks for is there, in a fixed set exactly, and in one that drops the least recently used
    for independent tokens that ask for fewer than it holds. Where a batch asks for more than that,
    such a cache drops each expert before it comes round again, and only a fixed set still helps.
    """
    asked = np.array([uniform(float(one), ffn.num_experts, ffn.top_k) for one in tokens])
    share = rule.resident_experts / ffn.num_experts
    if rule.cache == "static":
        return asked * (1 - share)
    return np.where(asked <= rule.resident_experts, asked * (1 - share), asked)


def _on_host_s(missing: Array, tokens: Array, ffn: MoeFfn, rule: Offload, on: Deployment) -> Array:
    """Return the time of missing experts on the host: of all devices together one processor."""
    assert rule.host_flop_per_s is not None and rule.host_bytes_per_s is not None
    params = expert_params(ffn, on.architecture.hidden)
    rows = tokens * ffn.top_k * (1 - rule.resident_experts / ffn.num_experts)
    compute = 2.0 * rows * params / rule.host_flop_per_s
    read = missing * expert_bytes(ffn, on) / rule.host_bytes_per_s
    moved = 2 * _WIDE * rows * on.architecture.hidden / rule.link_bytes_per_s
    return np.maximum(compute, read) + moved
