"""Judges kernel profiles on measurement tables: error by device, library, operator and dtype."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.calibrate import random_loads
from moesim.calibrate.measurements import Group, Skipped, held_out
from moesim.calibrate.table_fit import (
    LEAST_ROWS,
    SKEWED,
    accelerator_name,
    chips_of,
    newest,
    relative_errors,
    rows_of,
)
from moesim.cost.curves import Array, Chip, Curve
from moesim.cost.families.table import FAMILIES, bound_of
from moesim.cost.fitted import stand_ins
from moesim.cost.kernel_profiles import KernelProfile, curve_index
from moesim.cost.transferred import octaves_apart

Profiles = dict[tuple[str, str], KernelProfile]
"""Kernel profiles by accelerator and library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How well one curve predicts one group of rows; errors are relative, bias is signed."""

    operator: str
    hardware: str
    library: str
    dtype: str
    variant: str = ""
    version: str = ""
    rows: int = 0
    median: float | None = None
    p90: float | None = None
    bias: float | None = None
    families_median: float | None = None
    families_p90: float | None = None
    points_median: float | None = None
    points_p90: float | None = None
    roofline_median: float | None = None
    skipped: int = 0
    reason: str = ""

    def record(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return asdict(self)


def check(
    groups: list[Group], skipped: Iterable[Skipped], profiles: list[KernelProfile],
    *, all_rows: bool,
) -> list[Row]:  # fmt: skip
    """Return one row per group and one per reason for which rows were left out.

    Only rows that a fit never sees are judged (whole families of shapes and single points), unless
    `all_rows` says that the tables took no part in any fit. Random loads are all unseen; their
    reason says how much of their error is the draws' (`random_loads`). Decode is judged in two
    parts: where the cache takes long to read, and the rest.
    """
    known = Known.of(profiles)
    current = {id(group) for group in newest(groups)}
    chips = chips_of(group.hardware for group in groups)
    rows: list[Row] = []
    for group in groups:
        unseen = all_rows or _is_unseen(group, current)
        rows += [_judge(part, known, chips, unseen) for part in _parts(group, chips)]
    rows += [_left_out(one) for one in skipped]
    return sorted(rows, key=lambda r: (r.operator, r.hardware, r.library, r.dtype, r.variant))


@dataclass(frozen=True, slots=True)
class Known:
    """The profiles that judge, and the chips they were measured on."""

    profiles: Profiles
    chips: dict[str, Chip]

    @classmethod
    def of(cls, profiles: Iterable[KernelProfile]) -> "Known":
        """Return `profiles` by accelerator and library."""
        found = {(profile.accelerator, profile.library): profile for profile in profiles}
        return cls(found, chips_of(accelerator for accelerator, _ in found))


_LONG_S = 50e-6
"""Reading the cache of a decode step takes this long where memory decides, not launches: some ten
kernel launches."""


def _parts(group: Group, chips: dict[str, Chip]) -> list[Group]:
    """Return decode apart where its bound is long and where it is short; others as they are."""
    on = chips.get(group.hardware)
    bound_of_family = FAMILIES[group.family].bound_s if group.family in FAMILIES else None
    if group.family != "attention_decode" or on is None or bound_of_family is None:
        return [group]
    long = bound_of_family(group.samples, on, group.dtype) >= _LONG_S
    return [
        replace(
            group, samples=rows_of(group.samples, chosen), seconds=group.seconds[chosen],
            shapes=group.shapes[chosen], points=group.points[chosen], part=name,
        )
        for name, chosen in (("HBM-bound", long), ("short", ~long))
        if chosen.any()
    ]  # fmt: skip


def _is_unseen(group: Group, current: set[int]) -> bool:
    """Tell groups that no fit uses: older versions, and random loads."""
    return id(group) not in current or group.variant.endswith(SKEWED)


def _left_out(one: Skipped) -> Row:
    return Row(
        operator=one.operator, hardware=one.hardware, library=one.library, dtype=one.dtype,
        skipped=one.rows, reason=one.reason,
    )  # fmt: skip


def _judge(group: Group, known: Known, chips: dict[str, Chip], whole: bool) -> Row:
    on = chips.get(group.hardware)
    if on is None:
        why = f"no accelerator profile for {group.hardware}"
        return _named(group, skipped=len(group.seconds), reason=why)
    curve, why = _curve_for(group, known, on)
    if curve is None:
        return _named(group, skipped=len(group.seconds), reason=why)
    if not whole and not why and curve.rows < LEAST_ROWS:
        return _named(
            group, rows=len(group.seconds), median=curve.median_error, p90=curve.p90_error,
            reason="few rows: each was left out of the fit in turn",
        )  # fmt: skip
    judged = np.ones(len(group.seconds), dtype=bool)
    families, points = held_out(group)
    if not whole and not why.startswith(_LENT):
        judged = families | points
    if not judged.any():
        return _named(group, skipped=len(group.seconds), reason="every row is part of the fit")
    if group.variant.endswith(SKEWED):
        errors = relative_errors(curve, group.samples, group.seconds, on)
        why = "; ".join(filter(None, (why, random_loads.note(group, curve, on, errors))))
    return _named(group, reason=why, **_figures(group, curve, on, (judged, families, points)))


_Chosen = NDArray[np.bool_]


def _figures(
    group: Group, curve: Curve, on: Chip, chosen: tuple[_Chosen, _Chosen, _Chosen]
) -> dict[str, Any]:
    """Return the errors on all judged rows, on whole families and on single points."""
    judged, families, points = chosen
    errors = relative_errors(curve, group.samples, group.seconds, on)
    return {
        "rows": int(judged.sum()),
        "median": _median(errors[judged]),
        "p90": _p90(errors[judged]),
        "bias": float(np.median(errors[judged])),
        "families_median": _median(errors[families]),
        "families_p90": _p90(errors[families]),
        "points_median": _median(errors[points]),
        "points_p90": _p90(errors[points]),
        "roofline_median": _finite(_median(roofline_errors(group, on)[judged])),
    }


def _named(group: Group, **figures: Any) -> Row:
    variant = f"{group.variant}, {group.part}" if group.part else group.variant
    return Row(
        operator=group.family, hardware=group.hardware, library=group.library, dtype=group.dtype,
        variant=variant, version=group.version, **figures,
    )  # fmt: skip


_LENT = "lent by "


def _curve_for(group: Group, known: Known, on: Chip) -> tuple[Curve | None, str]:
    """Return the curve that a run on this device with this library would use, and what to note.

    A kernel that no curve was fitted to is judged by the same kernel's curve under another load
    (its name, and more), else by the curve with most rows of its operator; a device without curves
    by those of the nearest one of its maker.
    """
    accelerator = accelerator_name(group.hardware) or group.hardware
    profile = known.profiles.get((accelerator, group.library))
    curve, other = _of_profile(group, profile) if profile else (None, "")
    if curve is not None:
        return curve, f"judged by the curve {other!r}" if other else ""
    for name in _lenders(group, known, on):
        curve, other = _of_profile(group, known.profiles[name, group.library])
        if curve is not None:
            return curve, _LENT + name + (f", its curve {other!r}" if other else "")
    if profile is None:
        return None, f"no kernel profile for {accelerator} with {group.library}"
    return None, f"the profile has no curve for {group.family} {group.dtype}"


def _of_profile(group: Group, profile: KernelProfile) -> tuple[Curve | None, str]:
    """Return a profile's curve for a group, and its name where that is another.

    Without a curve of the group's number type that of another counts which a run would take too.
    """
    plain = group.variant.removesuffix(SKEWED)
    for dtype in dict.fromkeys((group.dtype, *stand_ins(group.dtype, group.family))):
        curve = _of_type(group.family, dtype, plain, profile)
        if curve is not None:
            own = "" if dtype == group.dtype else dtype
            other = "" if curve.variant == plain else curve.variant
            return curve, " ".join(filter(None, (other, own)))
    return None, ""


def _of_type(family: str, dtype: str, plain: str, profile: KernelProfile) -> Curve | None:
    index = curve_index(profile)
    if (family, dtype, plain) in index:
        return index[family, dtype, plain]
    others = [c for c in profile.curves if (c.family, c.dtype) == (family, dtype)]
    return max(others, default=None,
               key=lambda other: (other.variant.startswith(f"{plain}_"), other.rows))  # fmt: skip


def _lenders(group: Group, known: Known, on: Chip) -> list[str]:
    """Return the other accelerators with a profile of the group's library, nearest first."""
    apart = {
        accelerator: octaves_apart(on, known.chips[accelerator])
        for accelerator, library in known.profiles
        if library == group.library and accelerator in known.chips
    }
    near = {name: octaves for name, octaves in apart.items() if octaves is not None}
    return sorted(near, key=lambda name: (near[name], name))


def _median(errors: Array) -> float | None:
    return float(np.median(np.abs(errors))) if len(errors) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _p90(errors: Array) -> float | None:
    return float(np.quantile(np.abs(errors), 0.9)) if len(errors) else None


def roofline_errors(group: Group, on: Chip) -> Array:
    """Return the relative errors of the roofline plus the floor of what was measured."""
    bound_s = bound_of(FAMILIES[group.family], group.samples, on, group.dtype)
    if bound_s is None:
        return np.full(len(group.seconds), np.nan)
    floor_s = float(np.quantile(group.seconds, 0.01))
    return (bound_s + floor_s) / group.seconds - 1
