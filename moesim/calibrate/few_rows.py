"""Curves of groups with fewer rows than a fit needs: another curve, fitted anew to them.

A published table of three rows cannot fix ten parameters; it can move those of a relative. The
relative is a curve of the same family, and of the same phase where there is one: of the same
library on the nearest device, else of the nearest device, those of other makers last. A group of
few rows, moved so, may lend in turn: another's measurement of the same library says more of it than
a table of other kernels does. Where nothing
was fitted, all groups of the family on one fabric are fitted together, from where its parameters
start: the rates of links and networks are columns.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moesim.calibrate.measurements import Group
from moesim.calibrate.refit import refit
from moesim.calibrate.sources import described
from moesim.cost.curves import Array, Chip, Curve
from moesim.cost.families.table import FAMILIES, seconds_of
from moesim.cost.transferred import octaves_apart

Fitted = tuple[Group, Curve]

_OTHER_MAKER = 100.0
"""Octaves that count for a device of another maker: farther than any of the same."""

MUTUAL = ("direct",)
"""Families whose groups of few rows lend to each other: there, libraries differ more than devices
(pplx, UCCL-EP, MORI). All of `forwarded` go the way of DeepEP, whose curves have hundreds of rows:
lent among the few, median errors rose (H100 with UCCL-EP 3 to 11 %, H200 29 to 54 %)."""

POOLED = ("alltoall_across", "all_gather_across", "reduce_scatter_across", "send_across")
"""Families whose few rows are pooled where no curve can lend."""


def from_few(
    groups: Sequence[Group], fitted: Sequence[Fitted], chips: dict[str, Chip]
) -> list[Fitted]:
    """Return a curve for each group that has a relative, or companions enough to go without."""
    found: list[Fitted] = []
    lent: list[Fitted] = []
    alone: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        relative = _relative(group, fitted, chips)
        if relative is not None:
            lent.append((group, _anew(relative, [group], chips)))
        elif group.family in POOLED:
            alone[group.family].append(group)
    for group, _ in lent:
        others = [pair for pair in lent if pair[0] is not group and group.family in MUTUAL]
        relative = _relative(group, [*fitted, *others], chips)
        if relative is not None:
            found.append((group, _moved(relative, [group], chips)))
    for companions in alone.values():
        found += _pooled(companions, chips)
    return found


def _pooled(groups: Sequence[Group], chips: dict[str, Chip]) -> list[Fitted]:
    """Return one curve for the groups of each variant (the fabric between nodes).

    The variant with most rows starts where the fit does, and the others from its curve.
    """
    by_variant: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        by_variant[group.variant].append(group)
    pools = sorted(
        by_variant.values(), key=lambda pool: (-sum(len(g.seconds) for g in pool), pool[0].variant)
    )
    found: list[Fitted] = []
    start = _start(pools[0][0], chips)
    for pool in pools:
        curve = _moved(start, pool, chips)
        found += [(group, replace(curve, dtype=group.dtype)) for group in pool]
        start = found[0][1]
    return found


def _relative(group: Group, fitted: Sequence[Fitted], chips: dict[str, Chip]) -> Curve | None:
    alike = [(other, curve) for other, curve in fitted if curve.family == group.family]
    if not alike:
        return None
    return min(alike, key=lambda pair: _distance(group, pair[0], chips))[1]


def _distance(group: Group, other: Group, chips: dict[str, Chip]) -> tuple[float, ...]:
    """Return how far a relative is, what counts most first.

    Another phase, another place or fabric, another library, another device, another type, and
    fewer rows.
    """
    apart = octaves_apart(chips[group.hardware], chips[other.hardware])
    octaves = _OTHER_MAKER if apart is None else apart
    phase, others = _phase(group.variant), _phase(other.variant)
    return (
        len(phase ^ others), "nodes" in phase ^ others, _on_efa(group) != _on_efa(other),
        other.library != group.library, octaves, other.dtype != group.dtype, -len(other.seconds),
    )  # fmt: skip


def _on_efa(group: Group) -> bool:
    return "EFA" in group.variant


_PHASES = ("dispatch", "combine", "prepare", "nodes")


def _phase(variant: str) -> set[str]:
    """Return what a kernel does: which phase, and whether between nodes; not whose it is."""
    return set(variant.replace("over EFA", "over nodes").split()) & set(_PHASES)


def _start(group: Group, chips: dict[str, Chip]) -> Curve:
    """Return the family with the parameters that a fit begins at."""
    on = chips[group.hardware]
    return Curve(
        family=group.family, dtype=group.dtype, variant=group.variant,
        parameters=FAMILIES[group.family].start(on, group.dtype), surface=None, rows=0,
        median_error=1.0, p90_error=1.0, source="",
    )  # fmt: skip


def _moved(curve: Curve, groups: Sequence[Group], chips: dict[str, Chip]) -> Curve:
    """Return `curve` fitted anew to all rows; its errors are those of rows left out in turn."""
    samples, seconds = _together(groups, chips)
    first = groups[0]
    lent = replace(curve, dtype=first.dtype)
    on = chips[first.hardware]
    moved = _anew(curve, groups, chips)
    errors = np.abs(_left_out(lent, samples, seconds, on))
    sources = tuple(sorted({source for group in groups for source in group.sources}))
    names = ", ".join(sorted({f"{group.library} {group.version}" for group in groups}))
    return replace(
        moved,
        variant=first.variant,
        median_error=float(np.median(errors)),
        p90_error=float(np.quantile(errors, 0.9)),
        source=f"{described(sources)}; {names}; from {_origin(curve)}",
    )


def _anew(curve: Curve, groups: Sequence[Group], chips: dict[str, Chip]) -> Curve:
    """Return `curve` fitted anew to all rows of the groups, on the device of the first."""
    samples, seconds = _together(groups, chips)
    first = groups[0]
    lent = replace(curve, dtype=first.dtype)
    return refit(lent, FAMILIES[curve.family], samples, seconds, chips[first.hardware])


def _origin(curve: Curve) -> str:
    return f"the curve of {curve.source}" if curve.rows else "the start of the fit"


def _together(groups: Sequence[Group], chips: dict[str, Chip]) -> tuple[dict[str, Array], Array]:
    """Return the rows of all groups, each with the link rate of its device."""
    names = set(groups[0].samples).intersection(*(group.samples for group in groups[1:]))
    samples = {name: np.concatenate([g.samples[name] for g in groups]) for name in sorted(names)}
    links = [np.full(len(g.seconds), chips[g.hardware].link_bytes_per_s) for g in groups]
    samples["link_bytes_per_s"] = np.concatenate(links)
    return samples, np.concatenate([group.seconds for group in groups])


def _left_out(curve: Curve, samples: dict[str, Array], seconds: Array, on: Chip) -> Array:
    """Return the relative error of each row when the others alone move the curve."""
    family, errors = FAMILIES[curve.family], []
    for row in range(len(seconds)):
        rest = np.arange(len(seconds)) != row
        moved = curve
        if rest.any():
            few = {name: column[rest] for name, column in samples.items()}
            moved = refit(curve, family, few, seconds[rest], on)
        one = {name: column[~rest] for name, column in samples.items()}
        errors.append(float(seconds_of(family, moved, one, on)[0]) / float(seconds[row]) - 1)
    return np.asarray(errors)
