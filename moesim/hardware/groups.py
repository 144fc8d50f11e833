"""Rank groups on the topology: how many members share a domain, a leaf or a rail.

Ranks are numbered fastest first by an order of dimensions (rank_order), Megatron's unless another
is given. Rank r is on device r, or, with a placement of n ranks, on n (r // n) + placement[r % n];
device d sits in scale-up domain d // domain_size. Answers hold for the worst of all groups of a
kind; with the usual sizes (powers of two) all groups are alike.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from moesim.hardware.topology import Topology
from moesim.hardware.torus import TorusAxis, box_axes, covered_axes


@dataclass(frozen=True, slots=True)
class Group:
    """The ranks base + i * stride, i < size; such groups tile the whole cluster.

    With a run, the ranks base + i * stride + j * apart, i < run, j < size / run: two dimensions of
    the rank order with another between them.
    """

    size: int
    stride: int
    run: int = 0
    """Ranks in a run; 0: all of them."""
    apart: int = 0
    """From one run to the next."""

    @property
    def span(self) -> int:
        """Ranks from one group's first to the first of the next that it does not interleave."""
        return self.size // self.run * self.apart if self.run else self.size * self.stride


@dataclass(frozen=True, slots=True)
class Spread:
    """How a group lies over blocks of equally many ranks."""

    blocks: int
    """Blocks that the most scattered group touches."""
    members: int
    """The fewest members of a group in any block that it touches."""


def domains(group: Group, topology: Topology) -> int:
    """Return how many scale-up domains a group touches."""
    return domain_spread(group, topology).blocks


def spans_scale_out(group: Group, topology: Topology) -> bool:
    """Return whether some members are in different scale-up domains."""
    return domains(group, topology) > 1


def domain_spread(group: Group, topology: Topology) -> Spread:
    """Return how a group lies over scale-up domains."""
    return spread(group, topology.devices, topology.scale_up.domain_size, topology.placement)


def leaf_spread(group: Group, topology: Topology) -> Spread:
    """Return how a group lies over leaves; one leaf holds all where the profile names none."""
    leaf = topology.leaf_devices or topology.devices
    return spread(group, topology.devices, leaf, topology.placement)


def spread(group: Group, devices: int, block: int, placement: tuple[int, ...] = ()) -> Spread:
    """Return how groups of `devices` ranks lie over blocks of `block` consecutive devices.

    Raises ValueError where not even one group fits.
    """
    size, stride, span = group.size, group.stride, group.span
    if span > devices:
        raise ValueError(f"a group of {size} ranks, {stride} apart, needs {span} devices")
    if block >= devices or size == 1 or (block % span == 0 and not placement):
        return Spread(1, size)
    if group.run or placement:
        return _enumerated_spread(group, devices, block, placement)
    if stride >= block:
        return Spread(size, 1)
    if block % stride == 0 and span % block == 0:
        return Spread(span // block, block // stride)
    return _uneven_spread(group, devices, block)


def _enumerated_spread(
    group: Group, devices: int, block: int, placement: tuple[int, ...]
) -> Spread:
    """Return the worst case over all groups, block by block."""
    blocks = _places(group, devices, block, placement) // block
    new = np.ones(blocks.shape, dtype=bool)  # rows rise: a block's members are neighbours
    new[:, 1:] = blocks[:, 1:] != blocks[:, :-1]
    counts = np.diff(np.flatnonzero(new), append=blocks.size)
    return Spread(int(new.sum(axis=1).max()), int(counts.min()))


def _places(
    group: Group, devices: int, block: int, placement: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return the devices of the groups in one period of groups, blocks and placement, rising."""
    period = math.lcm(group.span, block, max(1, len(placement)))
    ranks = _firsts(group, devices, period)[:, None] + _offsets(group)
    if not placement:
        return ranks
    size = len(placement)
    return np.sort(ranks // size * size + np.array(placement)[ranks % size], axis=1)


def _offsets(group: Group) -> NDArray[np.int64]:
    """Return the members of the group whose first member is rank 0, rising."""
    run = group.run or group.size
    runs = np.arange(group.size // run)[:, None] * group.apart
    return np.sort((runs + np.arange(run) * group.stride).ravel())


def _firsts(group: Group, devices: int, period: int) -> NDArray[np.int64]:
    """Return the first members of the groups in one period."""
    ranks = np.arange(min(devices, period))
    inner = (group.run or group.size) * group.stride
    first = ranks % inner < group.stride
    return ranks[first & (ranks % group.span < group.apart)] if group.run else ranks[first]


def _uneven_spread(group: Group, devices: int, block: int) -> Spread:
    """Return the worst case over the places in a block where the first member can sit."""
    blocks, members = 1, group.size
    for first in _first_places(group, devices, block):
        touched = (first + (group.size - 1) * group.stride) // block + 1
        before = [-((first - j * block) // group.stride) for j in range(1, touched)]
        edges = [0, *before, group.size]
        counts = [end - start for start, end in pairwise(edges)]
        blocks, members = max(blocks, touched), min(members, *counts)
    return Spread(blocks, members)


def _first_places(group: Group, devices: int, block: int) -> set[int]:
    span = group.size * group.stride
    places: set[int] = set()
    repeats = block // math.gcd(span, block)
    for tile in range(min(devices // span, repeats)):
        places.update((tile * span + offset) % block for offset in range(group.stride))
        if len(places) == block:
            break
    return places


def rails_used(group: Group, topology: Topology) -> int:
    """Return on how many rails the members of one group sit (the most of any group)."""
    rails, node = topology.rails or 1, topology.devices_per_node
    width = node // rails
    if group.run or topology.placement:
        places = _places(group, topology.devices, node, topology.placement) % node // width
        return max(len(set(row)) for row in np.unique(places, axis=0).tolist())
    distinct = min(group.size, node // math.gcd(group.stride, node))
    return max(
        len({(base + i * group.stride) % node // width for i in range(distinct)})
        for base in range(min(node, group.stride))
    )


def uses_spine(group: Group, topology: Topology) -> bool:
    """Return whether a group's direct traffic crosses the oversubscribed part of scale-out.

    It does between leaves, and between rails where each rail has its own leaf switch.
    """
    if not spans_scale_out(group, topology):
        return False
    return leaf_spread(group, topology).blocks > 1 or rails_used(group, topology) > 1


def scale_out_bandwidth_bytes_per_s(group: Group, topology: Topology) -> float:
    """Return what one member of a group can send over scale-out, oversubscription included.

    Raises ValueError where the cluster has no scale-out network.
    """
    if topology.scale_out is None:
        raise ValueError("the cluster has no scale_out network")
    bandwidth = topology.scale_out.bandwidth_bytes_per_s
    return bandwidth / topology.oversubscription if uses_spine(group, topology) else bandwidth


def torus_axes(group: Group, topology: Topology) -> tuple[TorusAxis, ...] | None:
    """Return what a group covers of the torus axes, inner first.

    None where scale-up is no torus, or the group is no box of the slice.
    """
    if topology.torus is None or spans_scale_out(group, topology):
        return None
    if topology.placement:
        domain = topology.scale_up.domain_size
        places = _places(group, topology.devices, domain, topology.placement)
        return box_axes(topology.torus, places % domain)
    if group.run:
        return None
    return covered_axes(topology.torus, group.size, group.stride)
