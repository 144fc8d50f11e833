"""Seconds of a collective: bandwidth-optimal algorithms over one or two network tiers.

A group has N domains with m members each. Inside a domain the data moves at the scale-up rate,
between domains at the scale-out rate; the two phases are pipelined, so the slower one counts, and
their latencies add. Source of the two-tier rule: nccl-tests doc/PERFORMANCE.md for the factors;
22.05 ms measured against 20.8 ms predicted for 4 GiB on 4 nodes of 8 B200.
"""

import math
from dataclasses import dataclass

from moesim.cost.software import Software
from moesim.hardware.groups import (
    Group,
    domain_spread,
    scale_out_bandwidth_bytes_per_s,
    torus_axes,
)
from moesim.hardware.topology import TierKind, Topology, bandwidth_among
from moesim.hardware.torus import TorusAxis
from moesim.model.operators import CollectiveKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What a group's ranks find between them, at the rates that software reaches."""

    size: int
    domains: int
    members: int
    """Members of the group in one domain."""
    kind: TierKind
    """Of the scale-up network."""
    fabric_bytes_per_s: float
    """What one device can send between domains at best, oversubscription included."""
    scale_up_bytes_per_s: float
    scale_out_bytes_per_s: float
    scale_up_latency_s: float
    scale_out_latency_s: float
    fabric: str = ""
    """What kind of network joins the domains: only curves measured on one like it count."""
    axes: tuple[TorusAxis, ...] | None = None
    """What the group covers of each torus axis, where scale-up is a torus."""
    on_torus: bool = False
    link_bytes_per_s: float = math.inf
    """Rate of one torus link, one direction."""


def network(group: Group, topology: Topology, software: Software) -> Network:
    """Return the network between the ranks of `group`."""
    spread = domain_spread(group, topology)
    up, out = topology.scale_up, topology.scale_out
    fabric = scale_out_bandwidth_bytes_per_s(group, topology) if spread.blocks > 1 else 0.0
    near = bandwidth_among(up, max(1, spread.members - 1)) * software.scale_up_fraction
    axes = torus_axes(group, topology)
    if topology.torus is not None and axes is None and spread.blocks == 1:
        # members scattered over a torus: no better than one link
        near = up.pair_bandwidth_bytes_per_s * software.scale_up_fraction
    return Network(
        size=group.size,
        domains=spread.blocks,
        members=spread.members,
        kind=up.kind,
        fabric_bytes_per_s=fabric,
        scale_up_bytes_per_s=near,
        scale_out_bytes_per_s=fabric * software.scale_out_fraction,
        scale_up_latency_s=up.latency_s,
        scale_out_latency_s=out.latency_s if out else 0.0,
        fabric=out.fabric if out else "",
        axes=axes,
        on_torus=topology.torus is not None,
        link_bytes_per_s=up.pair_bandwidth_bytes_per_s * software.scale_up_fraction,
    )


def collective_s(kind: CollectiveKind, payload_bytes: float, net: Network) -> float:
    """Return the seconds of one collective; `payload_bytes` as in model.operators.Collective."""
    if net.size == 1 or payload_bytes == 0.0:
        return 0.0
    if kind == "all_reduce":
        ring = 2 * gather_s(payload_bytes, net)
        return ring if net.on_torus else min(ring, tree_all_reduce_s(payload_bytes, net))
    if kind == "all_to_all":
        return uniform_all_to_all_s(payload_bytes, net)
    if kind == "send":
        return send_s(payload_bytes, net)
    if kind == "broadcast":
        return broadcast_s(payload_bytes, net)
    return gather_s(payload_bytes, net)


def gather_s(payload_bytes: float, net: Network) -> float:
    """Return the seconds of a ring all-gather or reduce-scatter of `payload_bytes`.

    t = max((m-1)/m P / up, (N-1)/N P/m / out) + (m-1) up_latency + (N-1) out_latency
    """
    members, domains = net.members, net.domains
    near_s = (members - 1) / members * payload_bytes / _gather_rate(net)
    away_s = 0.0
    if domains > 1:
        away_s = (domains - 1) / domains * payload_bytes / members / net.scale_out_bytes_per_s
    return max(near_s, away_s) + _ring_latency_s(net)


def broadcast_s(payload_bytes: float, net: Network) -> float:
    """Return the seconds of a pipelined ring broadcast of `payload_bytes` from one rank.

    t = max(P / up, P/m / out) + (m-1) up_latency + (N-1) out_latency: every rank but the last
    sends on all it got; between domains each of the m rails carries its share.
    """
    near_s = payload_bytes / _gather_rate(net) if net.members > 1 else 0.0
    away_s = 0.0
    if net.domains > 1:
        away_s = payload_bytes / net.members / net.scale_out_bytes_per_s
    return max(near_s, away_s) + _ring_latency_s(net)


def _gather_rate(net: Network) -> float:
    """On a torus every covered axis carries its share: two directions in a ring, one in a line."""
    if not net.axes:
        return net.scale_up_bytes_per_s
    ways = sum((2 if axis.ring else 1) / axis.spacing for axis in net.axes)
    return min(net.scale_up_bytes_per_s, ways * net.link_bytes_per_s)


def _ring_latency_s(net: Network) -> float:
    steps = sum(axis.length - 1 for axis in net.axes) if net.axes else net.members - 1
    return steps * net.scale_up_latency_s + (net.domains - 1) * net.scale_out_latency_s


def tree_all_reduce_s(payload_bytes: float, net: Network) -> float:
    """Return the seconds of a double binary tree all-reduce (NCCL 2.4).

    Up and down the tree each rank sends the whole payload once; the latency grows with log2.
    """
    hops_s = math.ceil(math.log2(net.members)) * net.scale_up_latency_s if net.members > 1 else 0.0
    if net.domains > 1:
        hops_s += math.ceil(math.log2(net.domains)) * net.scale_out_latency_s
    near_s = payload_bytes / _gather_rate(net) if net.members > 1 else 0.0
    away_s = payload_bytes / net.members / net.scale_out_bytes_per_s if net.domains > 1 else 0.0
    return 2 * max(near_s, away_s) + 2 * hops_s


def uniform_all_to_all_s(payload_bytes: float, net: Network) -> float:
    """Return the seconds when each rank spreads `payload_bytes` evenly over the group."""
    near = payload_bytes * (net.members - 1) / net.size
    away = payload_bytes * (net.size - net.members) / net.size
    return exchange_s(near, away, net)


def exchange_s(near_bytes: float, away_bytes: float, net: Network) -> float:
    """Return the seconds when each rank sends `near_bytes` inside its domain and `away_bytes` out.

    Both go at once. On a torus the fullest link decides: of B bytes spread evenly over the L
    members of an axis, B L / 8 cross it in a ring and B L / 4 in a line.
    """
    if net.axes:
        whole = near_bytes * net.members / max(1, net.members - 1)
        near_s = max(_torus_axis_s(whole, axis, net) for axis in net.axes)
    else:
        near_s = near_bytes / net.scale_up_bytes_per_s if near_bytes else 0.0
    away_s = away_bytes / net.scale_out_bytes_per_s if away_bytes else 0.0
    latency_s = net.scale_up_latency_s if near_bytes else 0.0
    return max(near_s, away_s) + latency_s + (net.scale_out_latency_s if away_bytes else 0.0)


def _torus_axis_s(sent_bytes: float, axis: TorusAxis, net: Network) -> float:
    crossing = sent_bytes * axis.length / (8 if axis.ring else 4)
    return crossing * axis.spacing / net.link_bytes_per_s


def send_s(payload_bytes: float, net: Network) -> float:
    """Return the seconds of sending from one rank to its neighbour in the group."""
    if net.domains > 1:
        return payload_bytes / net.scale_out_bytes_per_s + net.scale_out_latency_s
    rate = min(net.scale_up_bytes_per_s, net.link_bytes_per_s)
    return payload_bytes / rate + net.scale_up_latency_s
