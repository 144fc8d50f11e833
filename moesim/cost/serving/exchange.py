"""What ranks send each other in a layer: sums over tensor parallel ranks, tokens to experts."""

import numpy as np

from moesim.cost import fitted_transfers as curves
from moesim.cost.collectives import Network, collective_s
from moesim.cost.curves import Array
from moesim.cost.serving.deployment import Deployment
from moesim.model.architecture import MoeFfn
from moesim.model.operators import CollectiveKind

_WIDE = 2.0


def all_reduce_s(tokens: Array, on: Deployment) -> Array:
    """Return the sum of a layer's output over the tensor parallel ranks."""
    payload = tokens * (_WIDE * on.architecture.hidden)
    return _each("all_reduce", payload, on.networks["tp"], on)


def exchange_s(ffn: MoeFfn, tokens: Array, on: Deployment) -> Array:
    """Return what it takes to bring tokens to their experts and the results back."""
    del ffn
    net = on.networks["ep"]
    payload = tokens * (_WIDE * on.architecture.hidden)
    if on.cut.exchange == "all_reduce" or on.cut.dp == 1:
        return _each("all_reduce", payload, net, on)
    gathered = payload * on.cut.dp
    return _each("all_gather", gathered, net, on) + _each("reduce_scatter", gathered, net, on)


def _each(kind: CollectiveKind, payloads: Array, net: Network, on: Deployment) -> Array:
    if net.size == 1:
        return np.zeros_like(payloads)
    return np.array([_once(kind, float(payload), net, on) for payload in payloads])


def _once(kind: CollectiveKind, payload: float, net: Network, on: Deployment) -> float:
    found = on.kernels.first("bf16", ("custom_all_reduce", "")) if kind == "all_reduce" else None
    known = curves.collective(kind, payload, net, on.kernels)
    del found
    if known is not None:
        return known.seconds
    return collective_s(kind, payload, net) + on.software.kernel_launch_s
