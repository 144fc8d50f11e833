"""Judges kernel profiles on measurement tables: error by device, library, operator and dtype."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from moesim.calibrate.measurements import Group, Skipped, held_out
from moesim.calibrate.table_fit import (
    SKEWED,
    accelerator_name,
    chips_of,
    newest,
    relative_errors,
)
from moesim.cost.curves import Array, Chip, Curve
from moesim.cost.families.table import FAMILIES, bound_of
from moesim.cost.kernel_profiles import KernelProfile, curve_index

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
    `all_rows` says that the tables took no part in any fit.
    """
    known = {(profile.accelerator, profile.library): profile for profile in profiles}
    current = {id(group) for group in newest(groups)}
    chips = chips_of(group.hardware for group in groups)
    rows = [_judge(group, known, chips, all_rows or _is_unseen(group, current)) for group in groups]
    rows += [_left_out(one) for one in skipped]
    return sorted(rows, key=lambda r: (r.operator, r.hardware, r.library, r.dtype, r.variant))


def _is_unseen(group: Group, current: set[int]) -> bool:
    """Tell groups that no fit uses: older versions, and random loads."""
    return id(group) not in current or group.variant.endswith(SKEWED)


def _left_out(one: Skipped) -> Row:
    return Row(
        operator=one.operator, hardware=one.hardware, library=one.library, dtype=one.dtype,
        skipped=one.rows, reason=one.reason,
    )  # fmt: skip


def _judge(group: Group, known: Profiles, chips: dict[str, Chip], whole: bool) -> Row:
    on = chips.get(group.hardware)
    if on is None:
        why = f"no accelerator profile for {group.hardware}"
        return _named(group, skipped=len(group.seconds), reason=why)
    curve, why = _curve_for(group, known)
    if curve is None:
        return _named(group, skipped=len(group.seconds), reason=why)
    families, points = held_out(group)
    judged = np.ones(len(group.seconds), dtype=bool)
    if not whole:
        judged = families | points
    if not judged.any():
        return _named(group, skipped=len(group.seconds), reason="every row is part of the fit")
    errors = relative_errors(curve, group.samples, group.seconds, on)
    return _named(
        group,
        rows=int(judged.sum()),
        median=_median(errors[judged]),
        p90=_p90(errors[judged]),
        bias=float(np.median(errors[judged])),
        families_median=_median(errors[families]),
        families_p90=_p90(errors[families]),
        points_median=_median(errors[points]),
        points_p90=_p90(errors[points]),
        roofline_median=_finite(_median(roofline_errors(group, on)[judged])),
        reason=why,
    )


def _named(group: Group, **figures: Any) -> Row:
    return Row(
        operator=group.family, hardware=group.hardware, library=group.library, dtype=group.dtype,
        variant=group.variant, version=group.version, **figures,
    )  # fmt: skip


def _curve_for(group: Group, known: Profiles) -> tuple[Curve | None, str]:
    """Return the curve that a run on this device with this library would use, and what to note.

    A kernel that no curve was fitted to is judged by the curve with most rows of its operator.
    """
    accelerator = accelerator_name(group.hardware)
    profile = known.get((accelerator or "", group.library))
    if profile is None:
        return None, f"no kernel profile for {accelerator} with {group.library}"
    index = curve_index(profile)
    plain = group.variant.removesuffix(SKEWED)
    if (group.family, group.dtype, plain) in index:
        return index[group.family, group.dtype, plain], ""
    others = [c for c in profile.curves if (c.family, c.dtype) == (group.family, group.dtype)]
    if not others:
        return None, f"the profile has no curve for {group.family} {group.dtype}"
    curve = max(others, key=lambda other: other.rows)
    return curve, f"judged by the curve {curve.variant!r}"


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
