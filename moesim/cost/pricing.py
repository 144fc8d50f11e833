"""Seconds of any operator on a machine: the one place where counts meet capabilities."""

from dataclasses import dataclass

from moesim.cost.collectives import Network, collective_s, exchange_s
from moesim.cost.fitted_kernels import collective_s as collective_time
from moesim.cost.kernels import kernel_time
from moesim.cost.layout import Layout, networks
from moesim.cost.software import Software
from moesim.cost.times import Stream, Tag, Timed
from moesim.hardware.device import Device
from moesim.hardware.topology import Topology
from moesim.model.operators import (
    DTYPE_BYTES,
    Collective,
    CollectiveKind,
    Exchange,
    Operator,
)
from moesim.moe.traffic import DISPATCHERS, Destinations, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The device, the software on it, and the networks of a parallel layout."""

    device: Device
    software: Software
    layout: Layout
    networks: dict[str, Network]


def machine(device: Device, topology: Topology, software: Software, layout: Layout) -> Machine:
    """Return what operators of `layout` are priced on."""
    return Machine(
        device=device,
        software=software,
        layout=layout,
        networks=networks(layout, topology, software),
    )


def price(operator: Operator, on: Machine, skew: float = 1.0) -> Timed:
    """Return how long `operator` takes on one rank of `on`.

    `skew` is the rows of the fullest rank over the mean: an exchange ends when the fullest rank
    has received everything.
    """
    if isinstance(operator, Collective):
        net = on.networks[operator.group]
        fitted = _fitted_collective(operator.kind, operator.payload_bytes, net, on)
        if fitted is not None:
            return Timed(fitted[0] * operator.count, _stream(net), fitted[1])
        seconds = collective_s(operator.kind, operator.payload_bytes, net) * operator.count
        return Timed(seconds + _launch_s(seconds, on), _stream(net), "assumed")
    if isinstance(operator, Exchange):
        net = on.networks["ep"]
        rows = rows_sent(operator, on)
        if on.layout.dispatcher == "allgather":
            skew = 1.0  # every rank receives every token, whatever they choose
        per_row = operator.tokens * operator.hidden * _row_bytes(operator.dtype)
        whole = rows.scale_up * per_row * skew * net.size / max(1, net.size - 1)
        fitted = _fitted_collective("all_to_all", whole, net, on)
        if fitted is not None:
            return Timed(fitted[0] * operator.count, _stream(net), fitted[1])
        seconds = exchange_s(rows.scale_up * per_row * skew, rows.scale_out * per_row * skew, net)
        return Timed((seconds + _launch_s(seconds, on)) * operator.count, _stream(net), "assumed")
    seconds, tag = kernel_time(operator, on.device, on.software)
    return Timed(seconds, "compute", tag)


def _fitted_collective(
    kind: CollectiveKind, payload_bytes: float, net: Network, on: Machine
) -> tuple[float, Tag] | None:
    """Return the fitted time of a collective that stays inside one switched domain, or None."""
    kernels = on.software.kernels
    if kernels is None or net.size == 1 or net.domains > 1 or net.on_torus or not payload_bytes:
        return None
    return collective_time(kind, payload_bytes, net.size, kernels)


def rows_sent(operator: Exchange, on: Machine) -> Rows:
    """Return the rows per token that one rank sends, by the layout's dispatcher."""
    net = on.networks["ep"]
    if net.size == 1:
        return Rows(0.0, 0.0)
    where = Destinations(
        experts=operator.num_experts,
        top_k=operator.top_k,
        ranks=net.size,
        domains=net.domains,
        groups=operator.groups,
        groups_per_token=operator.groups_per_token,
    )
    rows = DISPATCHERS[on.layout.dispatcher](where)
    if on.layout.dispatcher == "allgather":
        return rows
    share = operator.copies / operator.top_k
    if on.layout.dispatcher == "deepep":
        share = min(1.0, share)  # it has no padded buffers to send
    return Rows(rows.scale_up * share, rows.scale_out * share)


def _row_bytes(dtype: str) -> float:
    """Return the bytes per element of a row; fp8 has an fp32 scale per 128 elements (DeepEP)."""
    return 1 + 4 / 128 if dtype == "fp8" else DTYPE_BYTES[dtype]


def _launch_s(seconds: float, on: Machine) -> float:
    return on.software.kernel_launch_s if seconds > 0.0 else 0.0


def _stream(net: Network) -> Stream:
    return "scale-out" if net.domains > 1 else "scale-up"
