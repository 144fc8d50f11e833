"""How well the curves of one device predict another: from its datasheet, and with a few shapes.

A donor's curves are fitted as `table_fit` does; the datasheet figures are then swapped for the
target's. The target's rows took no part in that, so all of them are judged, but for the shapes
that `refit` is given. Random loads are left out, as in a fit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim import rng
from moesim.calibrate.check import roofline_errors
from moesim.calibrate.measurements import Group
from moesim.calibrate.refit import refit
from moesim.calibrate.table_fit import (
    LEAST_ROWS,
    SKEWED,
    Unfitted,
    accelerator_name,
    chips_of,
    fit_group,
    newest,
    relative_errors,
    rows_of,
)
from moesim.cost.curves import Array, Chip, Curve
from moesim.cost.families.table import FAMILIES
from moesim.cost.transferred import octaves_apart
from moesim.errors import CalibrationError

MOST_ROWS = 3000
"""Rows of a target that are judged; of larger tables a random part, the same in each run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which devices lend to which, and how many shapes a target gives."""

    donors: tuple[str, ...]
    targets: tuple[str, ...] = ()
    """Accelerators; empty for all of the donor's maker in the tables."""
    shapes: int = 40
    """For the second fit, at most half of the rows; 0 leaves it out."""
    draws: int = 5
    """Random choices of these shapes; the errors are medians over them."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Errors:
    """Of the absolute relative error."""

    median: float
    p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How well one curve of a donor predicts the rows of a target."""

    family: str
    library: str
    dtype: str
    variant: str
    donor: str
    target: str
    octaves: float
    rows: int = 0
    """Judged."""
    fit_median: float | None = None
    """Of the donor's curve on rows of the donor that its fit has not seen."""
    roofline: Errors | None = None
    """The datasheet's bound plus the floor of what was measured."""
    physics: Errors | None = None
    """The donor's parameters with the target's datasheet, its surface dropped."""
    datasheet: Errors | None = None
    """The same with the surface kept."""
    refit: Errors | None = None
    shapes: int = 0
    """That the second fit was given."""
    reason: str = ""
    """Why errors are missing."""

    def record(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Pair:
    donor: Group
    target: Group
    octaves: float


def transfer(
    groups: list[Group], plan: Plan, progress: Callable[[int, int], None] | None = None
) -> list[Transfer]:
    """Return one row for each operator, donor and target that the same library measured on both.

    Needs scipy (the extra `calibrate`). The same tables and plan give the same rows. Raises
    CalibrationError where the tables lack a device of the plan.
    """
    chosen = [group for group in newest(groups) if not group.variant.endswith(SKEWED)]
    chips = chips_of(group.hardware for group in chosen)
    pairs = list(_pairs([group for group in chosen if group.hardware in chips], chips, plan))
    found: list[Transfer] = []
    curves: dict[int, Curve | Unfitted] = {}
    for number, pair in enumerate(pairs):
        key = id(pair.donor)
        if key not in curves:
            curves[key] = fit_group(pair.donor, chips)
        found.append(_judged(pair, curves[key], chips[pair.target.hardware], plan))
        if progress is not None:
            progress(number + 1, len(pairs))
    return found


def _pairs(groups: Sequence[Group], chips: dict[str, Chip], plan: Plan) -> Iterator[_Pair]:
    """Yield donor and target groups of one operator and library, the donors as the plan says."""
    ordered = sorted(groups, key=lambda group: (*_operator(group), group.hardware))
    measured = {_name(group): chips[group.hardware] for group in ordered}
    for name in (*plan.donors, *plan.targets):
        if name not in measured:
            listed = ", ".join(sorted(measured)) or "none with an accelerator profile"
            raise CalibrationError(f"no measurements of {name} in these tables; devices: {listed}")
    for donor in plan.donors:
        apart = _octaves(donor, measured, plan)
        for lender in ordered:
            if _name(lender) == donor:
                same = (group for group in ordered if _operator(group) == _operator(lender))
                yield from (_Pair(lender, g, apart[_name(g)]) for g in same if _name(g) in apart)


def _octaves(donor: str, measured: dict[str, Chip], plan: Plan) -> dict[str, float]:
    """Return the targets of a donor, and how far each is from it."""
    apart = {name: octaves_apart(measured[donor], chip) for name, chip in measured.items()}
    for name in plan.targets:
        if apart[name] is None:
            raise CalibrationError(f"{donor} and {name} are of different makers")
    wanted = [name for name in plan.targets or measured if name != donor]
    return {name: octaves for name in wanted if (octaves := apart[name]) is not None}


def _name(group: Group) -> str:
    return accelerator_name(group.hardware) or group.hardware


def _operator(group: Group) -> tuple[str, str, str, str]:
    return group.family, group.library, group.dtype, group.variant


def _judged(pair: _Pair, curve: Curve | Unfitted, on: Chip, plan: Plan) -> Transfer:
    target = _thinned(pair.target)
    row = Transfer(
        family=target.family, library=target.library, dtype=target.dtype, variant=target.variant,
        donor=_name(pair.donor), target=_name(target), octaves=pair.octaves,
        rows=len(target.seconds),
    )  # fmt: skip
    if isinstance(curve, Unfitted):
        return replace(row, reason=f"the donor has no curve: {curve.reason}")
    if len(target.seconds) < LEAST_ROWS:
        return replace(row, reason=f"fewer than {LEAST_ROWS} rows")
    try:
        return _refitted(_lent(row, target, curve, on), target, curve, on, plan)
    except (KeyError, ValueError) as error:  # such as a peak that the datasheet does not state
        return replace(row, reason=f"cannot be predicted: {error}")


def _thinned(group: Group) -> Group:
    """Return up to MOST_ROWS rows of the group."""
    rows = len(group.seconds)
    if rows <= MOST_ROWS:
        return group
    generator = rng.stream(rows, f"rows judged {_operator(group)} {group.hardware}")
    return _part(group, _chosen(generator, rows, MOST_ROWS))


def _chosen(generator: np.random.Generator, rows: int, count: int) -> NDArray[np.bool_]:
    mask = np.zeros(rows, dtype=bool)
    mask[generator.choice(rows, count, replace=False)] = True
    return mask


def _part(group: Group, rows: NDArray[np.bool_]) -> Group:
    return replace(
        group, samples=rows_of(group.samples, rows), seconds=group.seconds[rows],
        shapes=group.shapes[rows], points=group.points[rows],
    )  # fmt: skip


def _lent(row: Transfer, target: Group, curve: Curve, on: Chip) -> Transfer:
    """Add the errors of the roofline and of the donor's curve on the target's datasheet."""
    return replace(
        row,
        fit_median=curve.median_error,
        roofline=_errors(roofline_errors(target, on)),
        physics=_of(replace(curve, surface=None, sites=None), target, on),
        datasheet=_of(curve, target, on),
    )


def _of(curve: Curve, target: Group, on: Chip) -> Errors | None:
    return _errors(relative_errors(curve, target.samples, target.seconds, on))


def _errors(errors: Array) -> Errors | None:
    """Return median and 90th percentile; None where the prediction is not a number."""
    found = Errors(float(np.median(np.abs(errors))), float(np.quantile(np.abs(errors), 0.9)))
    return found if np.isfinite(found.p90) else None


def _refitted(row: Transfer, target: Group, curve: Curve, on: Chip, plan: Plan) -> Transfer:
    """Add the errors after a second fit, on the rows that it was not given."""
    count = min(plan.shapes, len(target.seconds) // 2)
    if count < 1 or plan.draws < 1:
        return row
    drawn = [_one_draw(target, curve, on, (plan.seed, number), count)
             for number in range(plan.draws)]  # fmt: skip
    found = [errors for errors in drawn if errors is not None]
    if not found:
        return row
    median = float(np.median([errors.median for errors in found]))
    p90 = float(np.median([errors.p90 for errors in found]))
    return replace(row, refit=Errors(median, p90), shapes=count)


def _one_draw(
    target: Group, curve: Curve, on: Chip, draw: tuple[int, int], count: int
) -> Errors | None:
    seed, number = draw
    generator = rng.stream(seed, f"shapes {number} {_operator(target)} {target.hardware}")
    given = _chosen(generator, len(target.seconds), count)
    part, rest = _part(target, given), _part(target, ~given)
    anew = refit(curve, FAMILIES[target.family], part.samples, part.seconds, on)
    return _of(anew, rest, on)
