"""Samples to curves: peaks first, then each curve, judged on shapes that its fit did not see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moesim.calibrate.device import Target
from moesim.calibrate.samples import Sample, by_curve
from moesim.calibrate.suite import Case, columns
from moesim.cost.curve_fit import About, fit_curve
from moesim.cost.curves import Array, Chip, Curve, Family, predict_s, uncertainty
from moesim.cost.families import simple
from moesim.errors import CalibrationError

CurveKey = tuple[str, str, str]
"""Operator, dtype and variant."""

FAMILY: Mapping[str, Family] = {
    "gemm": simple.GEMM,
    "grouped_gemm": simple.GROUPED_GEMM,
    "attention": simple.ATTENTION,
    "elementwise": simple.ELEMENTWISE,
    "launch": simple.LAUNCH,
    "collective": simple.COLLECTIVE,
}
"""The physics that each operator is fitted to."""

_FEWEST = 2
"""Samples that a curve needs."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A shape left out of the fit: what the rest predicted for it."""

    case: Case
    measured_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted_s / self.measured_s - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What samples say about a device."""

    chip: Chip
    curves: Mapping[CurveKey, Curve]
    held_out: tuple[HeldOut, ...]
    host_s: Mapping[tuple[str, str], float]
    """Host time of a call, by operator and variant; empty where calls do not return early."""

    def seconds(self, cases: Sequence[Case]) -> Array:
        """Return the predicted seconds of cases, each by its own curve."""
        return np.asarray([predict_one(self, one) for one in cases])


def predict_one(fitted: Fitted, one: Case) -> float:
    """Return the predicted seconds; CalibrationError where nothing like it was measured."""
    curve = fitted.curves.get(one.curve)
    if curve is None:
        operator, dtype, variant = one.curve
        raise CalibrationError(
            f"nothing was measured for {operator} {variant} in {dtype}; measure with a larger "
            "--budget, or --fresh"
        )
    return float(predict_s(FAMILY[one.operator], curve, table([one]), fitted.chip)[0])


def doubt(fitted: Fitted, one: Case) -> float:
    """Return the relative uncertainty of the prediction for a case."""
    curve = fitted.curves.get(one.curve)
    if curve is None:
        return 1.0
    return float(uncertainty(FAMILY[one.operator], curve, table([one]))[0])


def table(cases: Sequence[Case]) -> dict[str, Array]:
    """Return the columns of cases of one curve."""
    rows = [columns(one) for one in cases]
    return {name: np.asarray([row[name] for row in rows]) for name in rows[0]}


def chip_of(target: Target, samples: Sequence[Sample]) -> Chip:
    """Return the device with the best that was observed as its peaks.

    Raises CalibrationError where there is no product or no copy among the samples yet.
    """
    peaks: dict[str, float] = {}
    copies, links = [], [0.0]
    for sample in samples:
        one, seconds = sample.case, sample.timing.seconds
        if one.operator == "gemm":
            rate = 2.0 * float(np.prod([v for _, v in one.shape])) / seconds
            peaks[one.dtype] = max(peaks.get(one.dtype, 0.0), rate)
        elif one.variant == "copy":
            copies.append((columns(one)["bytes"], seconds))
        elif one.operator == "collective":
            links.append(columns(one)["bytes"] / seconds)
    if not peaks or not copies:
        raise CalibrationError(
            "too little was measured for a profile: no matrix product or no copy yet; run again "
            "with a longer --budget, it goes on where it stopped"
        )
    moved, seconds = max(copies)  # the largest copy: smaller ones stay in the caches
    return Chip(
        name=target.slug, vendor=target.vendor, peak_flop_per_s=peaks,
        memory_bandwidth_bytes_per_s=moved / seconds, compute_units=target.compute_units,
        l2_bytes=target.cache_bytes, link_bytes_per_s=max(links),
    )  # fmt: skip


def fit(target: Target, samples: Sequence[Sample], *, folds: int = 4) -> Fitted:
    """Return curves for all operators with at least two samples.

    Each curve is fitted to all of its samples; its errors are those of shapes left out in turn.
    """
    chip = chip_of(target, samples)
    curves: dict[CurveKey, Curve] = {}
    held_out: list[HeldOut] = []
    for key, measured in by_curve(samples).items():
        found = _undisturbed(measured)
        if len(found) < _FEWEST:
            continue
        judged = _left_out(chip, found, folds) if folds else []
        held_out += judged
        curves[key] = _with_errors(_fit_one(chip, found, target), judged, found)
    return Fitted(
        chip=chip, curves=curves, held_out=tuple(held_out), host_s=_host_s(target, samples)
    )


_ENOUGH = 5
"""Undisturbed samples of a curve that make the others superfluous."""


def _undisturbed(samples: Sequence[Sample]) -> Sequence[Sample]:
    quiet = [sample for sample in samples if not sample.timing.disturbed]
    return quiet if len(quiet) >= _ENOUGH else samples


def _fit_one(chip: Chip, found: Sequence[Sample], target: Target | None = None) -> Curve:
    one = found[0].case
    source = f"moesim calibrate on {target.name}, torch {target.torch_version}" if target else ""
    measured = np.asarray([sample.timing.seconds for sample in found])
    cases = [sample.case for sample in found]
    about = About(variant=one.variant, source=source)
    return fit_curve(FAMILY[one.operator], table(cases), measured, chip, one.dtype, about)


def _left_out(chip: Chip, found: Sequence[Sample], folds: int) -> list[HeldOut]:
    """Leave out each sample once, but for the quickest and the slowest: between, not beyond."""
    ranked = sorted(found, key=lambda sample: sample.timing.seconds)
    inner = ranked[1:-1]
    judged = []
    for fold in range(min(folds, len(inner))):
        seen = inner[fold::folds]
        rest = [sample for sample in ranked if sample not in seen]
        curve = _fit_one(chip, rest)
        family = FAMILY[found[0].case.operator]
        guessed = predict_s(family, curve, table([sample.case for sample in seen]), chip)
        judged += [
            HeldOut(sample.case, sample.timing.seconds, float(seconds))
            for sample, seconds in zip(seen, guessed, strict=True)
        ]
    return judged


def _with_errors(curve: Curve, judged: Sequence[HeldOut], found: Sequence[Sample]) -> Curve:
    """Return the curve with the errors of unseen shapes, at least the spread of the samples."""
    spread = float(np.median([sample.timing.spread for sample in found]))
    if not judged:
        return replace(curve, median_error=max(0.25, spread), p90_error=max(0.5, 2 * spread))
    errors = np.abs([one.error for one in judged])
    middle, high = np.quantile(errors, (0.5, 0.9))
    return replace(
        curve, median_error=max(float(middle), spread), p90_error=max(float(high), 2 * spread)
    )


def _host_s(target: Target, samples: Sequence[Sample]) -> dict[tuple[str, str], float]:
    """Return the median host time of each operator: its launch, whatever the shape."""
    if not target.asynchronous:
        return {}
    found: dict[tuple[str, str], list[float]] = {}
    for sample in samples:
        key = (sample.case.operator, sample.case.variant)
        found.setdefault(key, []).append(sample.timing.host_s)
    return {key: float(np.median(times)) for key, times in found.items()}
