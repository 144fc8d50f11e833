"""What the rows of a transfer come to: by operator and device, and by distance."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from moesim.calibrate.transfer import Errors, Transfer
from moesim.cost.families.table import FAMILIES

DISTANCES = (0.0, 0.3, 1.0, 1.7, 2.2, 3.0, 4.5)
"""Where the classes of distance begin, in octaves; the last one is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One operator, library and dtype on one target; each figure is a median over variants."""

    family: str
    library: str
    dtype: str
    donor: str
    target: str
    octaves: float
    variants: int
    rows: int
    """Judged, of all variants together."""
    roofline: Errors | None
    physics: Errors | None
    datasheet: Errors | None
    refit: Errors | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """What the datasheet alone gives for one kind of operator in one class of distance.

    Medians over lines: each operator, library and dtype on each pair of devices counts once.
    """

    table: str
    octaves: float
    lines: int
    fit: float
    """Median error on the donor itself."""
    physics: float
    """With the donor's surface dropped."""
    datasheet: float
    gained: float
    """Error of the datasheet beyond that on the donor: sqrt(datasheet^2 - fit^2)."""


def by_operator(rows: Sequence[Transfer]) -> list[Line]:
    """Return one line for each family, library, dtype, donor and target that was judged."""
    groups: dict[tuple[str, ...], list[Transfer]] = defaultdict(list)
    for row in rows:
        if row.datasheet is not None:
            groups[row.family, row.library, row.dtype, row.donor, row.target].append(row)
    return [_line(found) for _, found in sorted(groups.items())]


def _line(found: Sequence[Transfer]) -> Line:
    one = found[0]
    return Line(
        family=one.family, library=one.library, dtype=one.dtype, donor=one.donor,
        target=one.target, octaves=one.octaves, variants=len(found),
        rows=sum(row.rows for row in found),
        roofline=_median(row.roofline for row in found),
        physics=_median(row.physics for row in found),
        datasheet=_median(row.datasheet for row in found),
        refit=_median(row.refit for row in found),
    )  # fmt: skip


def _median(errors: Iterable[Errors | None]) -> Errors | None:
    known = [one for one in errors if one is not None]
    if not known:
        return None
    medians, tails = [one.median for one in known], [one.p90 for one in known]
    return Errors(float(np.median(medians)), float(np.median(tails)))


def by_distance(rows: Sequence[Transfer]) -> list[Distance]:
    """Return the errors of the datasheet alone by kind of table and class of distance."""
    classes: dict[tuple[str, int], list[tuple[float, ...]]] = defaultdict(list)
    lines: dict[tuple[str, ...], list[Transfer]] = defaultdict(list)
    for row in rows:
        lines[row.family, row.library, row.dtype, row.donor, row.target].append(row)
    for found in lines.values():
        figures = [f for row in found if (f := _figures(row)) is not None]
        if figures:
            octaves, *errors = (float(value) for value in np.median(figures, axis=0))
            kind = int(np.searchsorted(DISTANCES, octaves, side="right")) - 1
            for name in (FAMILIES[found[0].family].table, _ALL):
                classes[name, kind].append((octaves, *errors))
    return [_class(table, figures) for (table, _), figures in sorted(classes.items())]


_ALL = "~ all"
"""Sorts behind the names of tables."""


def _figures(row: Transfer) -> tuple[float, ...] | None:
    if row.physics is None or row.datasheet is None or row.fit_median is None:
        return None
    return row.octaves, row.fit_median, row.physics.median, row.datasheet.median


def _class(table: str, figures: Sequence[tuple[float, ...]]) -> Distance:
    octaves, fit, physics, datasheet = (float(v) for v in np.median(figures, axis=0))
    gained = [max(lent**2 - own**2, 0.0) ** 0.5 for _, own, _, lent in figures]
    return Distance(
        table=table.removeprefix("~ "), octaves=octaves, lines=len(figures), fit=fit,
        physics=physics, datasheet=datasheet, gained=float(np.median(gained)),
    )  # fmt: skip
