"""Which rank holds which expert: placement rules, with and without redundant experts.

Every rule takes loads [..., E], leading dimensions (layers) being placed one by one but computed
together, and returns the expert of every slot.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.moe.packing import Indices, Loads, copies_of, pack, replicate


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where experts can lie: ranks with equally many slots, in equal nodes."""

    ranks: int
    slots_per_rank: int
    """Experts that a rank has memory for; ranks * slots_per_rank - E of them are redundant."""
    nodes: int = 1
    groups: int = 1
    """Expert groups of node-limited routing, which `replicated_by_node` keeps together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The expert in every slot of every rank."""

    expert_of_slot: NDArray[np.int64]
    """[..., ranks, slots per rank]; -1 where a slot is empty."""
    experts: int

    def __post_init__(self) -> None:
        """Refuse a placement that leaves an expert without a slot."""
        lost = int((replicas(self) == 0).sum())
        if lost:
            raise ValueError(f"{lost} of {self.experts} experts have no slot")


def replicas(placement: Placement) -> Indices:
    """Return [..., E]: how many slots hold each expert."""
    slots = placement.expert_of_slot
    counts = copies_of(slots.reshape(-1, slots.shape[-2] * slots.shape[-1]), placement.experts)
    return counts.reshape(*slots.shape[:-2], placement.experts)


def replica_memory_fraction(placement: Placement) -> float:
    """Return the expert bytes that redundancy adds: (slots - E) / E, empty slots left out.

    288 slots for 256 experts are 12.5 %. Memory has to be there for empty slots as well only
    where an engine reserves it.
    """
    slots = placement.expert_of_slot
    used = int((slots >= 0).sum()) / max(1, slots[..., 0, 0].size)
    return used / placement.experts - 1


def contiguous(loads: ArrayLike, room: Room) -> Placement:
    """Return experts in order: the first E / ranks on rank 0, and so on, whatever the load.

    Where E is no multiple of the ranks, the first ranks hold one expert more.
    """
    each = _as_layers(loads, room)
    experts, layers = each.shape[1], each.shape[0]
    least, more = divmod(experts, room.ranks)
    held = np.where(np.arange(room.ranks) < more, least + 1, least)[:, None]
    first = np.cumsum(held) - held[:, 0]
    local = np.arange(room.slots_per_rank)
    slots = np.where(local < held, first[:, None] + local, -1)
    return _placement(np.broadcast_to(slots, (layers, *slots.shape)), loads)


def round_robin(loads: ArrayLike, room: Room) -> Placement:
    """Return expert e on rank e mod ranks, whatever the load."""
    each = _as_layers(loads, room)
    layers, experts = each.shape
    expert = np.arange(room.slots_per_rank) * room.ranks + np.arange(room.ranks)[:, None]
    slots = np.where(expert < experts, expert, -1)
    return _placement(np.broadcast_to(slots, (layers, *slots.shape)), loads)


def greedy(loads: ArrayLike, room: Room) -> Placement:
    """Return one slot per expert, the largest first onto the least loaded rank with room."""
    return _placement(pack(_as_layers(loads, room), room.ranks, room.slots_per_rank), loads)


def replicated(loads: ArrayLike, room: Room) -> Placement:
    """Return all slots used: hot experts replicated, then copies packed onto ranks.

    The global policy of deepseek-ai/EPLB eplb.py rebalance_experts. It does not look at where
    experts lie already: little drift moves nearly all of them (see `moves` in rebalancing.py).
    """
    each = _as_layers(loads, room)
    return _placement(_replicate_and_pack(each, room.ranks, room.slots_per_rank), loads)


def replicated_by_node(loads: ArrayLike, room: Room) -> Placement:
    """Return expert groups packed onto nodes, then replicas within a node, then ranks.

    The hierarchical policy of deepseek-ai/EPLB eplb.py rebalance_experts_hierarchical: the
    experts of a group, which node-limited routing chooses together, stay in one node. Where nodes
    do not divide the groups it falls back to `replicated`, as EPLB does.
    """
    if room.groups % room.nodes:
        return replicated(loads, room)
    each = _as_layers(loads, room)
    layers, experts = each.shape
    size = experts // room.groups
    of_group = each.reshape(layers, room.groups, size).sum(axis=2)
    groups = pack(of_group, room.nodes, room.groups // room.nodes)
    expert = (groups[..., None] * size + np.arange(size)).reshape(layers * room.nodes, -1)
    layer = np.repeat(np.arange(layers), room.nodes)[:, None]
    local = _replicate_and_pack(each[layer, expert], room.ranks // room.nodes, room.slots_per_rank)
    slots = expert[np.arange(len(expert))[:, None, None], local]
    return _placement(slots.reshape(layers, room.ranks, room.slots_per_rank), loads)


PLACEMENTS: dict[str, Callable[[ArrayLike, Room], Placement]] = {
    "contiguous": contiguous,
    "round_robin": round_robin,
    "greedy": greedy,
    "replicated": replicated,
    "replicated_by_node": replicated_by_node,
}
"""The placement rules by their name in YAML."""


def _replicate_and_pack(loads: Loads, ranks: int, slots_per_rank: int) -> Indices:
    """Return [layers, ranks, slots per rank]: the expert in every slot."""
    copies = replicate(loads, ranks * slots_per_rank)
    count = copies_of(copies, loads.shape[1])
    per_copy = np.take_along_axis(loads / count, copies, axis=1)
    packed = pack(per_copy, ranks, slots_per_rank)
    return copies[np.arange(len(copies))[:, None, None], packed]


def _as_layers(loads: ArrayLike, room: Room) -> Loads:
    """Return the loads as [layers, E], or say what does not divide."""
    array = np.asarray(loads, dtype=np.float64)
    experts = array.shape[-1]
    slots = room.ranks * room.slots_per_rank
    if slots < experts:
        raise ValueError(f"{experts} experts do not fit into {slots} slots")
    if room.ranks % room.nodes:
        raise ValueError(f"{room.ranks} ranks are not {room.nodes} equal nodes")
    if experts % room.groups:
        raise ValueError(f"{experts} experts are not {room.groups} equal groups")
    return array.reshape(-1, experts)


def _placement(slots: Indices, loads: ArrayLike) -> Placement:
    """Give the slots [layers, ranks, slots per rank] the leading dimensions of the loads."""
    *leading, experts = np.shape(loads)
    shaped = np.array(slots).reshape(*leading, *slots.shape[1:])
    return Placement(expert_of_slot=shaped, experts=experts)
