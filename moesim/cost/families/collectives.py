"""Seconds of NCCL collectives.

Columns of the samples: `bytes` (NCCL-tests convention: the buffer of one rank for all_reduce,
broadcast, send and alltoall, the output of all_gather, the input of reduce_scatter), `ranks`; and
for groups across scale-up domains `domains` (default 1) and `network_bytes_per_s` (scale-out rate
of one device). `link_bytes_per_s` overrules the rate of the chip.

Inside a domain (family `<collective>`), with wire bytes w, ranks n, link rate r:

  t = ((floor + (n-1) step + (simple + (n-1) simple_step) h)^p + (w / (fraction r))^p)^(1/p)
  h = 1 / (1 + (B / (n switch_bytes))^-4)

The floor grows with the ring; h is the change from the low-latency protocols (LL, LL128) to Simple,
which costs up to 60 us at once near 1 to 2 MB per rank (measured B200 all-reduce, 4 ranks: 36 us at
4 MiB, 85 us at 8 MiB); p of 0.6 to 1.2 is the slow ramp of the bandwidth. NCCL changes protocols at
a size per rank, so what is left of the times is laid out by B / n. Of an all-reduce the protocols
are told apart, since each has a rate of its own (LL spends half of its bytes on flags):

  low = floor + (n-1) step + (wide + (n-1) wide_step) h(wide_bytes) + w / (low_fraction r)
  simple = ((simple + (n-1) simple_step)^p + (w / (fraction r))^p)^(1/p)
  t = low^(1-h) simple^h, h = h(switch_bytes) as above with the power 8

It may also be reduced in the switch (NVLS), which moves B (1 + 1/n) through a link: the faster of
both counts.

Across domains (family `<collective>_across`), with m members in each of N domains and NIC rate R:

  t = (latency^p + max(near / (fraction r), away (1 + loss log2 N) / (away_fraction R))^p)^(1/p)
  (near of an all-reduce: the faster of the ring and the switch)
  latency = floor + steps step + away_floor + away_step hops; steps: log2 m in the tree of an
  all-reduce, else m-1

What is fitted may fall where a protocol changes; `seconds` returns it rising and above the bound.

Sources: nccl-tests doc/PERFORMANCE.md (factors), NCCL tuning.cc (protocols and their latencies),
NVIDIA in-network reduction (NVLink SHARP); hops: log2 N for the tree all-reduce, N-1 for rings,
n-m peers for alltoall. Validity: 512 B to 16 GiB, 2 to 8 ranks in a domain as fitted.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from moesim.cost.curves import Array, Chip, Curve, Family, Parameters, Samples, predict_s
from moesim.cost.families.custom_all_reduce import CUSTOM_ALL_REDUCE, RANKS
from moesim.cost.families.ramps import (
    beyond,
    column,
    fraction,
    link_rate,
    network_rate,
    rising_s,
    together,
)
from moesim.cost.surface import octaves

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "broadcast", "send")
"""The collectives that have a family of their name, and one with `_across` behind it."""

_STEEPNESS = 4.0
"""How sharply the protocol changes: from one tenth to nine tenths within about 1.6 octaves."""

_HARD = 8.0
"""The same within 0.8 octaves: tables have a size per octave, and no step finer than that shows."""


def near_bytes(collective: str, samples: Samples) -> Array:
    """Return the bytes that a rank sends inside its domain.

    With m members in each of N domains and B bytes: 2 (m-1)/m B for all_reduce, (m-1)/m B for
    all_gather and reduce_scatter, (m-1)/(m N) B for alltoall, B for broadcast; send moves B inside
    only where there is one domain.
    """
    size, ranks = samples["bytes"], samples["ranks"]
    domains = column(samples, "domains", 1.0)
    members = np.maximum(1.0, ranks / domains)
    ring = (members - 1.0) / members
    if collective == "send":
        return np.where(domains > 1.0, 0.0, size)
    if collective == "broadcast":
        return np.where(members > 1.0, size, 0.0)
    factor = {"all_reduce": 2.0 * ring, "alltoall": ring / domains}.get(collective, ring)
    return np.asarray(size * factor)


def away_bytes(collective: str, samples: Samples) -> Array:
    """Return the bytes that a rank sends out of its domain.

    2 (N-1)/N B/m for all_reduce, (N-1)/N B/m for all_gather and reduce_scatter, (N-1)/N B for
    alltoall, B/m for broadcast (every rail carries its share), B for send.
    """
    size, ranks = samples["bytes"], samples["ranks"]
    domains = column(samples, "domains", 1.0)
    members = np.maximum(1.0, ranks / domains)
    others = (domains - 1.0) / domains
    crosses = np.where(domains > 1.0, 1.0, 0.0)
    factor = {
        "all_reduce": 2.0 * others / members,
        "alltoall": others,
        "broadcast": crosses / members,
        "send": crosses,
    }.get(collective, others / members)
    return np.asarray(size * factor)


def in_switch_bytes(samples: Samples) -> Array:
    """Return the bytes through a link when the switch reduces: B (1 + 1/m)."""
    members = np.maximum(1.0, samples["ranks"] / column(samples, "domains", 1.0))
    return np.asarray(samples["bytes"] * (1.0 + 1.0 / members))


def bound_s(collective: str, samples: Samples, chip: Chip, *, in_switch: bool = False) -> Array:
    """Return the seconds that no implementation can beat: wire bytes at the full link rates.

    With `in_switch` an all-reduce may instead move B (1 + 1/m) through each link.
    """
    near = near_bytes(collective, samples)
    if in_switch and collective == "all_reduce":
        near = np.minimum(near, in_switch_bytes(samples))
    away = away_bytes(collective, samples)
    return np.maximum(near / link_rate(samples, chip), away / network_rate(samples))


def _all_reduce_s(samples: Samples, chip: Chip, dtype: str, fitted: Parameters) -> Array:
    """Return the seconds inside a domain: low-latency protocols, Simple, or the switch."""
    if "wide_bytes" not in fitted:
        return _within("all_reduce")(samples, chip, dtype, fitted)
    size, ranks = samples["bytes"], samples["ranks"]
    rate, steps, sharp = link_rate(samples, chip), ranks - 1.0, fitted["sharpness"]
    wire = near_bytes("all_reduce", samples)
    wide = beyond(size / ranks, fitted["wide_bytes"], _HARD)
    low = fitted["floor_s"] + fitted["step_s"] * steps
    low = low + wide * (fitted["wide_s"] + fitted["wide_step_s"] * steps)
    low = low + wire / (fraction(fitted, "low_fraction") * rate)
    start = fitted["simple_s"] + fitted["simple_step_s"] * steps
    simple = together(start, wire / (fraction(fitted, "fraction") * rate), sharp)
    change = beyond(size / ranks, fitted["switch_bytes"], _HARD)
    total = low ** (1.0 - change) * simple**change
    begun = fitted["in_switch_s"] + fitted["in_switch_step_s"] * steps
    moved = in_switch_bytes(samples) / (fraction(fitted, "in_switch_fraction") * rate)
    return np.minimum(total, together(begun, moved, sharp))


def _within(collective: str) -> Callable[[Samples, Chip, str, Parameters], Array]:
    def seconds(samples: Samples, chip: Chip, dtype: str, fitted: Parameters) -> Array:
        size, ranks = samples["bytes"], samples["ranks"]
        rate, steps = link_rate(samples, chip), ranks - 1.0
        simple = beyond(size / ranks, fitted["switch_bytes"], _STEEPNESS)
        latency = fitted["floor_s"] + fitted["step_s"] * steps
        latency = latency + simple * (fitted["simple_s"] + fitted["simple_step_s"] * steps)
        wire = near_bytes(collective, samples) / (fraction(fitted, "fraction") * rate)
        total = together(latency, wire, fitted["sharpness"])
        if "in_switch_fraction" not in fitted:
            return total
        start = np.full_like(total, fitted["floor_s"] + fitted["in_switch_s"])
        moved = in_switch_bytes(samples) / (fraction(fitted, "in_switch_fraction") * rate)
        return np.minimum(total, together(start, moved, fitted["sharpness"]))

    return seconds


def _across(collective: str) -> Callable[[Samples, Chip, str, Parameters], Array]:
    def seconds(samples: Samples, chip: Chip, dtype: str, fitted: Parameters) -> Array:
        ranks, domains = samples["ranks"], column(samples, "domains", 1.0)
        members = np.maximum(1.0, ranks / domains)
        inside = np.log2(members) if collective == "all_reduce" else members - 1.0
        latency = fitted["floor_s"] + fitted["step_s"] * inside
        away = fitted["away_floor_s"] + fitted["away_step_s"] * _hops(collective, ranks, domains)
        latency = latency + np.where(domains > 1.0, away, 0.0)
        near = near_bytes(collective, samples)
        near_s = near / (fraction(fitted, "fraction") * link_rate(samples, chip))
        if "in_switch_fraction" in fitted:
            reached = fraction(fitted, "in_switch_fraction") * link_rate(samples, chip)
            near_s = np.minimum(near_s, in_switch_bytes(samples) / reached)
        spread = 1.0 + fitted["fan_out_loss"] * np.log2(np.maximum(domains, 1.0))
        reached = fraction(fitted, "away_fraction") * network_rate(samples)
        away_s = away_bytes(collective, samples) * spread / reached
        return together(latency, np.maximum(near_s, away_s), fitted["sharpness"])

    return seconds


def _hops(collective: str, ranks: Array, domains: Array) -> Array:
    """Return the steps between domains, one after the other."""
    if collective == "all_reduce":
        return np.log2(np.maximum(domains, 1.0))
    if collective == "alltoall":
        return np.asarray(ranks * (1.0 - 1.0 / domains))
    if collective == "send":
        return np.zeros_like(domains)
    return domains - 1.0


def seconds(family: Family, curve: Curve, samples: Samples, chip: Chip) -> Array:
    """Return the fitted seconds, never falling with the bytes and never below the bound.

    Between the measured sizes the curve is read on a ladder of half octaves and each rung is at
    least as high as the one below it. The bound of an all-reduce is that of a reducing switch.
    """
    family = laid_out(family, curve)
    fitted = rising_s(lambda asked: predict_s(family, curve, asked, chip), samples, "bytes")
    return np.maximum(fitted, bound_s(collective_of(family), samples, chip, in_switch=True))


def laid_out(family: Family, curve: Curve) -> Family:
    """Return the family with the coordinates that the curve's surface was fitted in.

    Profiles fitted before shares of a rank were told apart have whole messages on the first axis.
    """
    axis = curve.surface.axes[0].name if curve.surface else family.axes[0].name
    if axis == family.axes[0].name:
        return family
    return replace(family, coordinates=CUSTOM_ALL_REDUCE.coordinates, axes=CUSTOM_ALL_REDUCE.axes)


def collective_of(family: Family) -> str:
    """Return the collective that a family of this module prices."""
    return (
        "all_reduce" if family.name == CUSTOM_ALL_REDUCE.name else family.name.split("_across")[0]
    )


def _start(chip: Chip, dtype: str) -> dict[str, float]:
    return {
        "floor_s": 5e-6,
        "step_s": 1e-6,
        "simple_s": 5e-6,
        "simple_step_s": 2e-6,
        "switch_bytes": 5e5,
        "fraction": 0.8,
        "sharpness": 1.2,
    }


def _start_all_reduce(chip: Chip, dtype: str) -> dict[str, float]:
    return {
        "floor_s": 5e-6,
        "step_s": 1e-6,
        "wide_s": 2e-6,
        "wide_step_s": 3e-7,
        "wide_bytes": 4e3,
        "low_fraction": 0.25,
        "simple_s": 2e-5,
        "simple_step_s": 3e-6,
        "switch_bytes": 5e5,
        "fraction": 0.8,
        "sharpness": 1.2,
        "in_switch_s": 3e-5,
        "in_switch_step_s": 1e-6,
        "in_switch_fraction": 0.55,
    }


def _start_across(collective: str) -> Callable[[Chip, str], dict[str, float]]:
    def start(chip: Chip, dtype: str) -> dict[str, float]:
        values = {
            "floor_s": 5e-6,
            "step_s": 1e-6,
            "fraction": 0.8,
            "away_floor_s": 3e-5,
            "away_step_s": 5e-6,
            "away_fraction": 0.85,
            "fan_out_loss": 0.05,
            "sharpness": 0.9,
        }
        return values | ({"in_switch_fraction": 0.55} if collective == "all_reduce" else {})

    return start


def _share_and_ranks(samples: Samples) -> tuple[Array, ...]:
    return np.log2(samples["bytes"] / samples["ranks"]), np.log2(samples["ranks"])


def _size_and_domains(samples: Samples) -> tuple[Array, ...]:
    return np.log2(samples["bytes"]), np.log2(column(samples, "domains", 1.0))


_QUANTUM = {"ranks": 0.3}
"""More ranks at the same bytes: the share of each is smaller, for which NCCL may take a faster
protocol, and a reducing switch moves B (1 + 1/n). More bytes are never faster."""
_SHARES = octaves("log2_bytes_per_rank", 6.0, 34.0, 1.0)


def _within_family(collective: str) -> Family:
    return Family(
        name=collective,
        table="collectives",
        physics=_within(collective),
        start=_start,
        coordinates=_share_and_ranks,
        axes=(_SHARES, RANKS),
        smoothing=0.1,
        quantum=_QUANTUM,
    )


ALL_REDUCE = replace(
    _within_family("all_reduce"),
    physics=_all_reduce_s,
    start=_start_all_reduce,
    tries=tuple({"switch_bytes": size} for size in (6e4, 2.5e5, 1e6, 4e6)),
    switch_pull=0.1,
    pull=0.1,
)
"""NCCL's all-reduce inside a domain."""


def _across_family(collective: str) -> Family:
    return Family(
        name=f"{collective}_across",
        table="collectives",
        physics=_across(collective),
        start=_start_across(collective),
        coordinates=_size_and_domains,
        axes=(octaves("log2_bytes", 4.0, 34.0, 3.0), octaves("log2_domains", 1.0, 9.0, 2.0)),
        smoothing=1.0,
    )


FAMILIES: tuple[Family, ...] = (
    ALL_REDUCE,
    *(_within_family(name) for name in COLLECTIVES if name != "all_reduce"),
    *(_across_family(name) for name in COLLECTIVES),
    CUSTOM_ALL_REDUCE,
)
"""Every family of this module."""
