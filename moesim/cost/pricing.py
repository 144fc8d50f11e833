"""Seconds of any operator on a machine: the one place where counts meet capabilities."""

from dataclasses import dataclass, field, replace

from moesim.cost import fitted_transfers as curves
from moesim.cost.collectives import Network, collective_s, exchange_s
from moesim.cost.kernels import kernel_time
from moesim.cost.layout import Layout, networks
from moesim.cost.software import Software
from moesim.cost.stated import factor
from moesim.cost.times import ASSUMED_UNCERTAINTY, Known, Stream, Timed
from moesim.hardware.device import Device
from moesim.hardware.topology import Topology
from moesim.model.operators import (
    DTYPE_BYTES,
    Collective,
    CollectiveKind,
    Exchange,
    Operator,
)
from moesim.moe.dispatchers import Rows, rows_by
from moesim.moe.traffic import Destinations


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The device, the software on it, and the networks of a parallel layout."""

    device: Device
    software: Software
    layout: Layout
    networks: dict[str, Network]
    known: dict[tuple[Operator, float], Timed] = field(
        default_factory=dict, compare=False, repr=False
    )
    """What has been priced: layers alike ask for the same operators."""


def machine(device: Device, topology: Topology, software: Software, layout: Layout) -> Machine:
    """Return what operators of `layout` are priced on."""
    return Machine(
        device=device,
        software=software,
        layout=layout,
        networks=networks(layout, topology, software),
    )


def price(operator: Operator, on: Machine, skew: float = 1.0) -> Timed:
    """Return how long `operator` takes on one rank of `on`, all repetitions.

    `skew` is the rows of the fullest rank over the mean: an exchange ends when the fullest rank
    has received everything.
    """
    timed = on.known.get((operator, skew))
    if timed is None:
        timed = on.known[operator, skew] = _priced(operator, on, skew)
    return timed


def _priced(operator: Operator, on: Machine, skew: float) -> Timed:
    if isinstance(operator, Collective):
        net = on.networks[operator.group]
        return _timed(transfer(operator.kind, operator.payload_bytes, net, on), operator.count, net)
    if isinstance(operator, Exchange):
        return _timed(_exchange(operator, on, skew), operator.count, on.networks["ep"])
    known = kernel_time(operator, on.device, on.software)
    return Timed(known.seconds, "compute", known.tag, known.uncertainty, known.origin)


def _timed(known: Known, count: int, net: Network) -> Timed:
    stream: Stream = "scale-out" if net.domains > 1 else "scale-up"
    return Timed(known.seconds * count, stream, known.tag, known.uncertainty, known.origin)


def transfer(kind: CollectiveKind, payload_bytes: float, net: Network, on: Machine) -> Known:
    """Return one collective: by its curve, else by the closed form with assumed efficiencies."""
    if on.software.kernels is not None:
        known = curves.collective(kind, payload_bytes, net, on.software.kernels)
        if known is not None:
            return replace(known, seconds=known.seconds * factor(kind, on.software.stated))
    return _assumed(collective_s(kind, payload_bytes, net), on)


def _assumed(seconds: float, on: Machine) -> Known:
    launched = seconds + on.software.kernel_launch_s if seconds > 0.0 else 0.0
    return Known(launched, "assumed", ASSUMED_UNCERTAINTY)


def _exchange(operator: Exchange, on: Machine, skew: float) -> Known:
    """Return one dispatch or combine."""
    net, kernels = on.networks["ep"], on.software.kernels
    row_bytes = operator.hidden * value_bytes(operator.dtype)
    rows = rows_sent(operator, on)
    if on.layout.dispatcher == "allgather":
        skew = 1.0  # every rank receives every token, whatever they choose
    if kernels is not None and net.size > 1:
        known = None
        if on.layout.dispatcher == "allgather":
            known = curves.gathered(operator, row_bytes, net, kernels)
        elif on.layout.dispatcher in ("deepep", "hybridep"):
            known = curves.forwarded(
                operator, row_bytes, net, kernels, skew=skew,
                link_bound=on.layout.dispatcher == "hybridep",
            )  # fmt: skip
        elif operator.copies:
            sent = operator.tokens * operator.copies * row_bytes * skew
            known = curves.collective("all_to_all", sent, net, kernels)
            if known is not None:
                slower = factor("all_to_all", on.software.stated)
                return replace(known, seconds=known.seconds * slower)
        if known is not None:
            return known
    per_row = operator.tokens * row_bytes * skew
    return _assumed(exchange_s(rows.scale_up * per_row, rows.scale_out * per_row, net), on)


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
        group_best=operator.group_best,
    )
    return rows_by(on.layout.dispatcher, where, operator.copies)


def value_bytes(dtype: str) -> float:
    """Return the bytes per element of a row; fp8 has an fp32 scale per 128 elements (DeepEP)."""
    return 1 + 4 / 128 if dtype == "fp8" else DTYPE_BYTES[dtype]
