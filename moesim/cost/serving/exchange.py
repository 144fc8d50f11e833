"""What ranks send each other in a layer: sums over tensor parallel ranks, tokens to experts."""

import numpy as np

from moesim.cost import fitted_transfers as curves
from moesim.cost.collectives import Network, collective_s
from moesim.cost.curves import Array, predict_s
from moesim.cost.families.collectives import CUSTOM_ALL_REDUCE
from moesim.cost.serving.deployment import Deployment
from moesim.model.operators import CollectiveKind

_WIDE = 2.0
"""Bytes of an activation: bf16."""

ONE_SHOT_BYTES = 8 * 2**20
"""Largest message that engines sum with kernels of their own instead of NCCL (vLLM,
distributed/device_communicators/custom_all_reduce.py, max_size = 8192 * 1024; from memory)."""


def all_reduce_s(tokens: Array, on: Deployment) -> Array:
    """Return the sum of a layer's output over the tensor parallel ranks."""
    return summed_s(tokens * (_WIDE * on.architecture.hidden), on.networks["tp"], on)


def exchange_s(tokens: Array, on: Deployment) -> Array:
    """Return what it takes to bring tokens to their experts and the results back.

    Tokens are of one attention group. Where the group's ranks have all tokens already, only the
    results are summed; groups of their own give all their tokens to all and get sums back.
    """
    net = on.networks["ep"]
    payload = tokens * (_WIDE * on.architecture.hidden)
    if on.cut.dp == 1:
        return summed_s(payload, net, on)
    gathered = payload * on.cut.dp
    return _each("all_gather", gathered, net, on) + _each("reduce_scatter", gathered, net, on)


def summed_s(payloads: Array, net: Network, on: Deployment) -> Array:
    """Return an all-reduce: by the engine's own kernel where it is small and quicker, else NCCL."""
    nccl = _each("all_reduce", payloads, net, on)
    found = on.kernels.kind("bf16", "custom_all_reduce", "")
    if found is None or net.domains > 1 or net.kind != "switch" or net.size == 1:
        return nccl
    samples = {"bytes": payloads, "ranks": np.full_like(payloads, net.size)}
    own = predict_s(CUSTOM_ALL_REDUCE, found.curve, samples, on.chip)
    return np.where(payloads <= ONE_SHOT_BYTES, np.minimum(own, nccl), nccl)


def _each(kind: CollectiveKind, payloads: Array, net: Network, on: Deployment) -> Array:
    if net.size == 1:
        return np.zeros_like(payloads)
    return np.array([_once(kind, float(payload), net, on) for payload in payloads])


def _once(kind: CollectiveKind, payload: float, net: Network, on: Deployment) -> float:
    known = curves.collective(kind, payload, net, on.kernels)
    if known is not None:
        return known.seconds
    return collective_s(kind, payload, net) + on.software.kernel_launch_s
