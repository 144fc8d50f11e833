"""What a source measured of its own machine, in the place of the shipped curves.

A case file may say under `hardware` what the operators of one box reached, under a key such as
`simumax_calibration`. It holds for the cases of that source alone: the box is not a typical one.
Of the shipped curves those of collectives stay: a source states one share for each kind of
collective, while the bandwidth of NCCL doubles between 4 and 64 MB and differs with the ranks (on
B200 an all-gather of 64 MB has a bus bandwidth of 354, 468 and 427 GB/s over 2, 4 and 8 ranks, and
617 at 512 MB over 8; ai-dynamo/aiconfigurator @095f58a). The share scales the curve.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from moesim.cost import fitted_transfers
from moesim.cost.collectives import Network, network
from moesim.cost.fitted import Kernels
from moesim.cost.software import Software
from moesim.cost.stated import Stated
from moesim.hardware.groups import Group
from moesim.hardware.topology import Topology
from moesim.model.operators import CollectiveKind
from moesim.spec.cases import Case, CaseFile, Words

_SUFFIX = "_calibration"
_FRACTIONS = {
    "gemm_efficiency": "gemm_fraction",
    "grouped_gemm_efficiency": "grouped_gemm_fraction",
    "attention_fwd_efficiency": "attention_fraction",
    "memory_efficiency": "memory_fraction",
    "all_gather_efficiency": "scale_up_fraction",
}
"""Shares of the datasheet peaks, by the names of the file and ours."""

_COLLECTIVES: tuple[tuple[str, CollectiveKind], ...] = (
    ("all_reduce_efficiency", "all_reduce"),
    ("all_gather_efficiency", "all_gather"),
    ("reduce_scatter_efficiency", "reduce_scatter"),
    ("all_to_all_efficiency", "all_to_all"),
)
"""Shares of the link's rate as bus bandwidth."""

_LARGE_BYTES = float(1 << 29)
"""The message at which a source's one share is taken to hold, over all devices of a node: assumed;
the largest that public tables have for every kind of collective."""


def calibration_of(case: Case, file: CaseFile) -> Words | None:
    """Return the operator measurements that the source of `case` made on its machine."""
    described = file.hardware.get(case.text("hardware"), {})
    said = f"{case.id} {case.text('source')}".casefold()
    for key, words in described.items():
        if key.endswith(_SUFFIX) and key.removesuffix(_SUFFIX).casefold() in said:
            return words if isinstance(words, dict) else None
    return None


def with_calibration(software: Software, words: Words, on: Topology) -> Software:
    """Return `software` with the source's own shares, and the curves of collectives alone."""
    given: dict[str, Any] = {
        ours: value
        for theirs, ours in _FRACTIONS.items()
        if (value := _number(words, theirs)) is not None
    }
    kernels = _collectives_only(software.kernels)
    found = replace(software, kernels=kernels, libraries=(), **given)
    attention = _number(words, "attention_fwd_efficiency")
    stated = Stated(
        attention_backward_fraction=_number(words, "attention_bwd_efficiency"),
        permute_fraction=_number(words, "permute_efficiency"),
        all_pairs=attention is not None and attention > found.gemm_fraction,
        collectives=tuple(_factors(found, words, on)),
    )
    return replace(found, stated=stated)


def _number(words: Words, name: str) -> float | None:
    value = words.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _collectives_only(kernels: Kernels | None) -> Kernels | None:
    if kernels is None:
        return None
    kept = {"collectives": kernels.lenders.get("collectives", ())}
    return Kernels(kernels.chip, kept)


def _factors(software: Software, words: Words, on: Topology) -> Iterator[tuple[str, float]]:
    """Yield the seconds of each kind of collective over those of its curve, for large messages."""
    net = _whole_node(software, on)
    if software.kernels is None or net.size == 1:
        return
    for name, kind in _COLLECTIVES:
        share = _number(words, name)
        known = fitted_transfers.collective(kind, _LARGE_BYTES, net, software.kernels)
        if share is not None and known is not None:
            rate = share * on.scale_up.bandwidth_bytes_per_s
            yield kind, _wire_bytes(kind, net) / rate / known.seconds


def _whole_node(software: Software, on: Topology) -> Network:
    """Return the network of all devices of a domain, also where a run has fewer of them."""
    alone, size = network(Group(1, 1), on, software), on.scale_up.domain_size
    return replace(alone, size=size, members=size)


def _wire_bytes(kind: CollectiveKind, net: Network) -> float:
    """Return what a rank sends: (n-1)/n of the message, twice for all_reduce."""
    return (2.0 if kind == "all_reduce" else 1.0) * (net.size - 1) / net.size * _LARGE_BYTES
