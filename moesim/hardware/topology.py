"""The networks between devices: tiers, torus slices, leaves and rails."""

import math
from dataclasses import dataclass
from typing import Literal

from moesim.hardware.device import Device, device
from moesim.hardware.figures import SourcedFigure, sourced
from moesim.hardware.torus import Torus, chosen_slice, slice_size, torus
from moesim.spec.hardware import AcceleratorSpec, ClusterSpec, ScaleOutSpec, ScaleUpSpec

TierKind = Literal["switch", "mesh", "torus", "pcie", "fabric"]
MAX_DEVICES = 10**7


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One network: the scale-up network inside domains or the scale-out network between them."""

    name: Literal["scale_up", "scale_out"]
    kind: TierKind
    domain_size: int
    """Devices that this network connects; ranks domain_size * k and following share a domain."""
    bandwidth_bytes_per_s: float
    """Of one device, one direction, while all devices send."""
    pair_bandwidth_bytes_per_s: float
    """The most that one device can send to one other: a single link in a mesh or torus."""
    latency_s: float
    """What one more step adds."""
    fabric: str = ""
    """What kind of network scale-out is: infiniband, roce, efa, slingshot or ethernet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """How the devices of a run are connected."""

    devices: int
    devices_per_node: int
    scale_up: Tier
    scale_out: Tier | None
    torus: Torus | None = None
    """The slice of each domain, where scale-up is a torus."""
    oversubscription: float = 1.0
    leaf_devices: int | None = None
    rails: int | None = None
    placement: tuple[int, ...] = ()
    """Device of each rank among as many devices, again and again; empty: rank r is on device r."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Devices of one kind, connected."""

    name: str
    description: str
    device: Device
    topology: Topology
    figures: tuple[SourcedFigure, ...]
    """Every figure of the cluster and of its accelerator."""


def cluster(
    spec: ClusterSpec,
    accelerator: AcceleratorSpec,
    devices: int,
    *,
    domain: int | None = None,
    shape: tuple[int, ...] | None = None,
) -> Cluster:
    """Return `devices` devices of a cluster profile.

    `domain` uses fewer devices of each scale-up domain than there are, for example 64 of 72;
    `shape` is the slice of a torus that each domain is, where it is not chosen by the count.

    Raises ValueError, in words for the user, where the cluster cannot have that many.
    """
    _check_count(spec, devices)
    whole = spec.scale_up.torus
    slices = chosen_slice(whole, shape, devices) if whole and shape else None
    domain = _domain(spec, devices, math.prod(slices.shape) if slices else domain)
    if whole and slices is None:
        slices = torus(whole, domain)
    node = spec.devices_per_node.value
    out = spec.scale_out
    topology = Topology(
        devices=devices,
        devices_per_node=node,
        scale_up=_scale_up(spec.scale_up, domain),
        scale_out=_scale_out(out, node, devices) if out else None,
        torus=slices,
        oversubscription=out.oversubscription.value if out and out.oversubscription else 1.0,
        leaf_devices=out.leaf_devices.value if out and out.leaf_devices else None,
        rails=out.rails.value if out and out.rails else None,
    )
    built = device(accelerator)
    figures = _figures(spec) + built.figures
    return Cluster(
        name=spec.name,
        description=spec.description,
        device=built,
        topology=topology,
        figures=figures,
    )


def _check_count(spec: ClusterSpec, devices: int) -> None:
    node = spec.devices_per_node.value
    most = spec.max_devices.value if spec.max_devices else MAX_DEVICES
    if not 1 <= devices <= most:
        raise ValueError(f"cluster '{spec.name}' has 1 to {most} devices, not {devices}")
    if devices > node and devices % node:
        lower = devices // node * node
        raise ValueError(
            f"cluster '{spec.name}' has {node} devices per node, so {devices} devices leave a node "
            f"partly used; take {lower} or {lower + node}"
        )


def _domain(spec: ClusterSpec, devices: int, wanted: int | None) -> int:
    full, node = spec.scale_up.domain.value, spec.devices_per_node.value
    domain = full if wanted is None else wanted
    if not 1 <= domain <= full or (domain % node and node % domain):
        raise ValueError(
            f"the scale-up domain of cluster '{spec.name}' has {full} devices; use at most that, "
            f"a multiple or a divisor of the {node} per node, not {domain}"
        )
    if devices > domain and spec.scale_out is None:
        raise ValueError(
            f"cluster '{spec.name}' has no scale_out network, so at most the {domain} devices of "
            f"one domain work together, not {devices}"
        )
    return slice_size(devices, domain) if spec.scale_up.torus else domain


def _scale_up(spec: ScaleUpSpec, domain: int) -> Tier:
    bandwidth = spec.bandwidth.value
    links = 1
    if spec.kind == "mesh":
        links = max(1, spec.domain.value - 1)
    elif spec.torus is not None:
        links = 2 * len(spec.torus.shape.value)
    return Tier(
        name="scale_up",
        kind=spec.kind,
        domain_size=domain,
        bandwidth_bytes_per_s=bandwidth,
        pair_bandwidth_bytes_per_s=bandwidth / links,
        latency_s=spec.latency.value,
    )


def _scale_out(spec: ScaleOutSpec, devices_per_node: int, devices: int) -> Tier:
    nic = spec.nic_bandwidth.value
    share = nic * spec.nics_per_node.value / devices_per_node
    return Tier(
        name="scale_out",
        kind="fabric",
        domain_size=devices,
        bandwidth_bytes_per_s=share,
        # Where devices share a card, one of them alone has all of it.
        pair_bandwidth_bytes_per_s=max(share, nic),
        latency_s=spec.latency.value,
        fabric=spec.fabric.value,
    )


def _figures(spec: ClusterSpec) -> tuple[SourcedFigure, ...]:
    subject = f"cluster {spec.name}"
    up, out = spec.scale_up, spec.scale_out
    found = [
        *sourced(subject, "devices_per_node", spec.devices_per_node),
        *sourced(subject, "scale_up.domain", up.domain),
        *sourced(subject, "scale_up.bandwidth", up.bandwidth, "bytes_per_s"),
        *sourced(subject, "scale_up.latency", up.latency, "s"),
    ]
    if up.torus is not None:
        found += sourced(subject, "scale_up.torus.shape", up.torus.shape)
        found += sourced(subject, "scale_up.torus.ring_multiple", up.torus.ring_multiple)
    if out is not None:
        found += sourced(subject, "scale_out.fabric", out.fabric)
        found += sourced(subject, "scale_out.nic_bandwidth", out.nic_bandwidth, "bytes_per_s")
        found += sourced(subject, "scale_out.nics_per_node", out.nics_per_node)
        found += sourced(subject, "scale_out.latency", out.latency, "s")
        found += sourced(subject, "scale_out.oversubscription", out.oversubscription)
        found += sourced(subject, "scale_out.leaf_devices", out.leaf_devices)
        found += sourced(subject, "scale_out.rails", out.rails)
    found += sourced(subject, "max_devices", spec.max_devices)
    return tuple(found)


def bandwidth_among(tier: Tier, peers: int) -> float:
    """Return the rate, in bytes/s, at which a device can send to `peers` others at once.

    min(bandwidth, peers * pair bandwidth): in a mesh, few peers mean few links.
    """
    return min(tier.bandwidth_bytes_per_s, peers * tier.pair_bandwidth_bytes_per_s)
