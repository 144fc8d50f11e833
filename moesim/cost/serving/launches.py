"""What launching kernels costs the host: nothing beyond a graph, else a time for each kernel."""

from bisect import bisect_left
from collections.abc import Sequence

from moesim.cost.serving.deployment import Deployment
from moesim.model.architecture import Layer, MoeFfn

EAGER_LAUNCH_S = 10e-6
"""Host time of a kernel that an engine launches from Python: assumed (an operator of eager PyTorch
takes 5 to 10 us until its kernel is queued, from memory, unchecked)."""

_AROUND = 6
"""Kernels of a layer beside products and sums: two norms, rotation, write into the cache,
attention, activation."""
_CROSS = 5
"""More kernels of a layer with cross-attention: norm, attention, projections of queries, of keys
and values from new prompts, and of the output."""
_EXPERTS = 5
"""More kernels of a layer of experts: choice of experts, sort, quantisation, sum, router."""


def padded(tokens: int, sizes: Sequence[int]) -> int:
    """Return the captured graph that so many tokens run in; themselves beyond the largest."""
    at = bisect_left(sizes, tokens)
    return sizes[at] if at < len(sizes) else tokens


def launched(tokens: int, sequences: int, on: Deployment) -> tuple[int, bool]:
    """Return how many tokens an iteration computes, and whether a graph holds its kernels."""
    if not on.graphs or tokens > sequences:  # prompts run kernel by kernel
        return tokens, False
    sizes = on.graph_sizes
    if sizes and tokens > sizes[-1]:
        return tokens, False
    return padded(tokens, sizes), True


def host_s(layers: Sequence[tuple[Layer, int]], on: Deployment) -> float:
    """Return the host time of the kernels of an iteration without a graph.

    The host runs ahead of the device, so an iteration takes the longer of the two; attention, which
    is priced apart, comes on top (assumed).
    """
    each = on.software.host_per_kernel_s or EAGER_LAUNCH_S
    return each * sum(count * layer_kernels(layer, on) for layer, count in layers)


def layer_kernels(layer: Layer, on: Deployment) -> int:
    """Return the kernels of a layer: products of attention and of the network, sums over ranks."""
    sums = 2 if on.cut.tp > 1 else 0
    count = _AROUND + 4 + sums
    if layer.cross_attention is not None:
        count += _CROSS + sums // 2
    if isinstance(layer.ffn, MoeFfn):
        count += _EXPERTS + (3 if layer.ffn.shared_width else 0)
    return count
