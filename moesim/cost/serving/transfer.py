"""What it takes to bring a request's cache from where its prompt was computed to where it decodes.

Attention groups (the tp * pp devices that hold a sequence's cache) send and receive with all of
their devices at once; each device of the receiving group gets its own part of the cache.
"""

from dataclasses import dataclass

from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.memory import cache_bytes
from moesim.hardware.topology import Topology, bandwidth_among


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What attention groups of a pool send or receive at, over each network."""

    scale_up_bytes_per_s: float
    scale_out_bytes_per_s: float
    """0 where the cluster has no such network."""


def ports(on: Deployment, others: int, topology: Topology) -> Ports:
    """Return the rates of an attention group towards one of `others` devices.

    Devices of the group times the rate of one that software reaches; over scale-out the cards of
    all devices, oversubscription included, as replicas lie under different leaves.
    """
    devices, out = on.cut.tp * on.cut.pp, topology.scale_out
    near = bandwidth_among(topology.scale_up, others) * on.software.scale_up_fraction
    away = 0.0
    if out is not None:
        away = out.bandwidth_bytes_per_s / topology.oversubscription
    return Ports(
        scale_up_bytes_per_s=devices * near,
        scale_out_bytes_per_s=devices * away * on.software.scale_out_fraction,
    )


def moved_bytes_per_token(to: Deployment) -> float:
    """Return what all devices of the receiving attention group get per cached token.

    Cache of one device times tp * pp; a latent cache, which each tensor parallel rank holds whole,
    is sent to each.
    """
    return cache_bytes(to.architecture, to) * to.cut.tp * to.cut.pp


def group_devices(on: Deployment, base: int, number: int, rank: int) -> list[int]:
    """Return the devices of attention group `rank` of replica `number` of a pool.

    Replicas of a pool follow each other from device `base`; in a replica stages follow each other,
    in a stage attention groups, in a group tensor parallel ranks.
    """
    cut = on.cut
    stage = cut.tp * cut.dp
    first = base + number * stage * cut.pp + rank * cut.tp
    return [first + at * stage + shard for at in range(cut.pp) for shard in range(cut.tp)]
