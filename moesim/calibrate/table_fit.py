"""From measurement tables to kernel profiles: the same tables give the same bytes."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.calibrate.few_rows import from_few
from moesim.calibrate.measurements import Group, held_out
from moesim.calibrate.sources import described
from moesim.cost.chips import chip
from moesim.cost.curve_fit import About, fit_curve
from moesim.cost.curves import Array, Chip, Curve, Samples
from moesim.cost.families.table import FAMILIES, bound_of, seconds_of
from moesim.cost.kernel_profiles import KernelProfile
from moesim.hardware.device import device
from moesim.hardware.profiles import (
    accelerator_names,
    cluster_names,
    load_accelerator,
    load_cluster,
)

LEAST_ROWS = 12
"""Rows below which no curve is fitted."""

SKEWED = ", skewed"
"""Ending of the variant of rows whose load a random draw decided."""


@dataclass(frozen=True, slots=True)
class Unfitted:
    """A group that got no curve, and why."""

    group: Group
    reason: str
    few: bool = False
    """Whether all that is missing is rows."""


def accelerator_name(hardware: str) -> str | None:
    """Return the accelerator profile for the hardware key of a table, such as h200_sxm: h200."""
    names = accelerator_names()
    plain = hardware.replace("_", "-")
    shorter = plain.removesuffix("-per-device").replace("-sxm", "")
    return next((name for name in (plain, shorter) if name in names), None)


def chips_of(hardware: Iterable[str]) -> dict[str, Chip]:
    """Return the datasheet figures behind hardware keys; keys without a profile are left out."""
    links = _link_rates()
    found = {}
    for key in set(hardware):
        name = accelerator_name(key)
        if name is not None:
            found[key] = chip(device(load_accelerator(name)), links.get(name, 0.0))
    return found


def _link_rates() -> dict[str, float]:
    """Return, for each accelerator, the scale-up rate of the first cluster that has it."""
    rates: dict[str, float] = {}
    for name in cluster_names():
        spec = load_cluster(name)
        rates.setdefault(spec.accelerator, spec.scale_up.bandwidth.value)
    return rates


def newest(groups: Iterable[Group]) -> list[Group]:
    """Return, of several versions of a library, the last one that measured each operator.

    One with too few rows for a fit, such as a figure or two of a paper, comes before all others.
    """
    last: dict[tuple[str, ...], Group] = {}
    for group in groups:
        key = (group.family, group.hardware, group.library, group.dtype, group.variant)
        if key not in last or _version(group) >= _version(last[key]):
            last[key] = group
    return list(last.values())


def _version(group: Group) -> tuple[bool, bool, tuple[int, ...], int]:
    """Order versions by their numbers; a name instead of a version comes before all of them."""
    rows = len(group.seconds)
    digits = "".join(c if c.isdigit() else " " for c in group.version).split()
    numbers = tuple(int(part) for part in digits[:6])
    return rows >= LEAST_ROWS, group.version[:1].isdigit(), numbers, rows


def fit_profiles(
    groups: list[Group],
    tables: tuple[tuple[str, str], ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[KernelProfile], list[Unfitted]]:
    """Return a profile for each device and library, and what was left out.

    Rows that `held_out` names are never seen by the fit; the errors stated are on them. Groups of
    too few rows for that get the curve of a relative, moved (`few_rows`). `tables` are the names
    and digests of the files the groups come from.
    """
    chosen = newest(groups)
    chips = chips_of(group.hardware for group in chosen)
    fitted: list[tuple[Group, Curve]] = []
    unfitted: list[Unfitted] = []
    for number, group in enumerate(chosen):
        curve = fit_group(group, chips, _companions(group, chosen))
        if isinstance(curve, Unfitted):
            unfitted.append(curve)
        else:
            fitted.append((group, curve))
        if progress is not None:
            progress(number + 1, len(chosen))
    few = [one.group for one in unfitted if one.few]
    moved = from_few(few, fitted, chips)
    done = {id(group) for group, _ in moved}
    left = [one for one in unfitted if id(one.group) not in done]
    return _profiles([*fitted, *moved], tables), left


def _profiles(
    fitted: list[tuple[Group, Curve]], tables: tuple[tuple[str, str], ...]
) -> list[KernelProfile]:
    """Return the curves by accelerator and library."""
    curves: dict[tuple[str, str], list[tuple[Group, Curve]]] = defaultdict(list)
    for group, curve in fitted:
        accelerator = accelerator_name(group.hardware) or group.hardware
        curves[accelerator, group.library].append((group, curve))
    return [replace(_profile(key, found), tables=tables) for key, found in sorted(curves.items())]


TYPELESS = ("all_gather", "reduce_scatter", "alltoall")
"""Families that move bytes whatever they mean: tables of several element types are one. An
all-reduce is not, since switches add up floating point only."""


def _companions(group: Group, others: Iterable[Group]) -> list[Group]:
    """Return the same measurement with other element types, for a family that asks for bytes."""
    return [
        other
        for other in others
        if group.family in TYPELESS
        and other is not group
        and _but_dtype(other) == _but_dtype(group)
        and set(other.samples) == set(group.samples)
    ]


def _but_dtype(group: Group) -> tuple[str, ...]:
    return group.family, group.hardware, group.library, group.version, group.variant


def fit_group(
    group: Group, chips: dict[str, Chip], companions: Iterable[Group] = ()
) -> Curve | Unfitted:
    """Return the curve of one group with its errors on held-out rows, or why it has none.

    Rows of `companions` are fitted along, but none of a shape or point that is held out.
    """
    if group.family not in FAMILIES:
        return Unfitted(group, f"no physics for {group.family}")
    on = chips.get(group.hardware)
    if on is None:
        return Unfitted(group, f"no accelerator profile for {group.hardware}")
    if group.variant.endswith(SKEWED):
        return Unfitted(group, "random loads are judged by the kernel's curve, not fitted")
    families, points = held_out(group)
    seen = ~(families | points)
    if int(seen.sum()) < LEAST_ROWS:
        return Unfitted(group, f"fewer than {LEAST_ROWS} rows", few=True)
    if reason := _impossible(group, on):
        return Unfitted(group, reason)
    about = About(group.variant, f"{described(group.sources)}; {group.library} {group.version}")
    family = FAMILIES[group.family]
    samples, seconds = _rows_to_fit(group, seen, companions)
    try:
        curve = fit_curve(family, samples, seconds, on, group.dtype, about)
    except (KeyError, ValueError) as error:
        return Unfitted(group, f"cannot be fitted: {error}")
    return _with_errors(curve, group, families | points, on)


_LEAST_OF_BOUND = 0.2
"""Times whose median is below this share of what the datasheet allows are in another unit. Of the
published groups of twelve rows and more none is below 1.1; a working set in a cache gives a half.
"""


def _impossible(group: Group, on: Chip) -> str:
    """Return what is wrong with times that no such device can reach, or nothing."""
    try:
        bound_s = bound_of(FAMILIES[group.family], group.samples, on, group.dtype)
    except (KeyError, ValueError):  # such as a peak that the datasheet does not state
        return ""
    if bound_s is None:
        return ""
    share = float(np.median(group.seconds / np.maximum(bound_s, 1e-12)))
    if share >= _LEAST_OF_BOUND:
        return ""
    return f"{1 / share:,.3g} times faster than the datasheet allows: is time_us in microseconds?"


def _rows_to_fit(
    group: Group, seen: NDArray[np.bool_], companions: Iterable[Group]
) -> tuple[Samples, Array]:
    parts = [(group, seen)]
    for other in companions:
        families, points = held_out(other)
        hidden = families | points | np.isin(other.points, group.points[~seen])
        parts.append((other, ~hidden))
    samples = {
        name: np.concatenate([part.samples[name][chosen] for part, chosen in parts])
        for name in group.samples
    }
    return samples, np.concatenate([part.seconds[chosen] for part, chosen in parts])


def _with_errors(curve: Curve, group: Group, out: NDArray[np.bool_], on: Chip) -> Curve:
    if not out.any():
        return curve
    error = np.abs(relative_errors(curve, rows_of(group.samples, out), group.seconds[out], on))
    return replace(
        curve,
        median_error=float(np.median(error)),
        p90_error=float(np.quantile(error, 0.9)),
    )


def relative_errors(curve: Curve, samples: Samples, measured_s: Array, on: Chip) -> Array:
    """Return (predicted - measured) / measured."""
    return seconds_of(FAMILIES[curve.family], curve, samples, on) / measured_s - 1


def rows_of(samples: Samples, rows: NDArray[np.bool_]) -> dict[str, Array]:
    """Return the samples in these rows."""
    return {name: column[rows] for name, column in samples.items()}


def _profile(key: tuple[str, str], found: list[tuple[Group, Curve]]) -> KernelProfile:
    accelerator, library = key
    versions = sorted({group.version for group, _ in found})
    ordered = sorted(found, key=lambda pair: (pair[1].family, pair[1].dtype, pair[1].variant))
    return KernelProfile(
        name=f"{accelerator}--{_plain(library)}",
        accelerator=accelerator,
        library=library,
        version=", ".join(versions),
        description="",
        curves=tuple(curve for _, curve in ordered),
        kinds=("fitted",) * len(ordered),
    )


def _plain(library: str) -> str:
    """Return the name of a library as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", library).strip(".-")[:64] or "unknown"
