"""How long an operator takes on one device with one library: physics times a residual surface.

A family is a physics formula with a handful of parameters; a curve is what fitting it to the
measurements of one (device, library, dtype, variant) gave.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim import rng
from moesim.cost.surface import Axis, Rising, Surface, evaluate, fit_surface, octaves_outside

Array = NDArray[np.float64]
Samples = Mapping[str, Array]
"""Columns by name, all of one length: the shape of each measured or asked-for operator."""
Parameters = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """The datasheet figures that the physics of kernels works with."""

    name: str
    vendor: str
    peak_flop_per_s: Mapping[str, float]
    """By dtype of the matrix unit: bf16, fp8, fp4, …"""
    memory_bandwidth_bytes_per_s: float
    compute_units: int
    l2_bytes: float
    link_bytes_per_s: float = 0.0
    """Scale-up rate of one device, one direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A physics formula and how its residual is laid out."""

    name: str
    table: str
    """Stem of the measurement file it is fitted to."""
    physics: Callable[[Samples, Chip, str, Parameters], Array]
    """Seconds of each sample: samples, chip, dtype, parameters."""
    start: Callable[[Chip, str], dict[str, float]]
    """Where the fit of the parameters begins; all are positive and fitted as logarithms."""
    coordinates: Callable[[Samples], tuple[Array, ...]]
    """Where a sample lies on the axes of the surface."""
    axes: tuple[Axis, ...]
    smoothing: float = 0.3
    bound_s: Callable[[Samples, Chip, str], Array] | None = None
    """What no kernel can beat on this chip: samples, chip, dtype. Predictions never go below."""
    samples_at: Callable[[tuple[Array, ...]], Samples] | None = None
    """The inverse of `coordinates`, needed where `rising` names axes."""
    rising: tuple[int, ...] = ()
    """Axes along which the fitted time is not to fall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A fitted family."""

    family: str
    dtype: str
    variant: str
    """Kernel, mode or phase where a table tells several apart; else empty."""
    parameters: Parameters
    surface: Surface | None
    rows: int
    median_error: float
    p90_error: float
    source: str


def predict_s(family: Family, curve: Curve, samples: Samples, chip: Chip) -> Array:
    """Return the seconds of each sample, never less than the family's bound."""
    seconds = family.physics(samples, chip, curve.dtype, curve.parameters)
    if curve.surface is not None:
        seconds = seconds * np.exp(evaluate(curve.surface, family.coordinates(samples)))
    if family.bound_s is None:
        return seconds
    return np.maximum(seconds, family.bound_s(samples, chip, curve.dtype))


def uncertainty(family: Family, curve: Curve, samples: Samples) -> Array:
    """Return the relative standard deviation of each prediction.

    From the median error of the fit (a median absolute error of e is a deviation of 1.48 e),
    doubled for each two octaves outside of what was measured.
    """
    axes = curve.surface.axes if curve.surface else family.axes
    outside = octaves_outside(axes, family.coordinates(samples))
    return 1.48 * max(curve.median_error, 0.01) * np.exp2(outside / 2)


@dataclass(frozen=True, slots=True)
class About:
    """What a fit is to be remembered by."""

    variant: str = ""
    source: str = ""


_NO_NAME = About()


def fit_curve(
    family: Family, samples: Samples, measured_s: Array, chip: Chip, dtype: str,
    about: About = _NO_NAME,
) -> Curve:  # fmt: skip
    """Return the family fitted to measured times: parameters first, then the surface.

    Needs scipy (the extra `calibrate`). The same rows give the same curve.
    """
    parameters = fit_parameters(family, samples, measured_s, chip, dtype)
    physics = family.physics(samples, chip, dtype, parameters)
    residual = np.log(measured_s / physics)
    coordinates = family.coordinates(samples)
    axes = _covered(family.axes, coordinates)
    rising = _rising(family, axes, chip, dtype, parameters)
    surface = fit_surface(axes, coordinates, residual, family.smoothing, rising)
    error = np.abs(np.expm1(evaluate(surface, coordinates) - residual))
    return Curve(
        family=family.name,
        dtype=dtype,
        variant=about.variant,
        parameters=parameters,
        surface=surface,
        rows=len(measured_s),
        median_error=float(np.median(error)),
        p90_error=float(np.quantile(error, 0.9)),
        source=about.source,
    )


def _rising(
    family: Family, axes: tuple[Axis, ...], chip: Chip, dtype: str, parameters: Parameters
) -> Rising | None:
    """Return the physics at the knots, for a family whose time may not fall along some axes."""
    if family.samples_at is None:
        return None
    grid = np.meshgrid(*(axis.knots for axis in axes), indexing="ij")
    samples = family.samples_at(tuple(values.ravel() for values in grid))
    return Rising(np.log(family.physics(samples, chip, dtype, parameters)), family.rising)


_MOST_ROWS = 2500
"""Rows that the parameters are fitted to: more change them by less than the repeat noise."""


def fit_parameters(
    family: Family, samples: Samples, measured_s: Array, chip: Chip, dtype: str
) -> dict[str, float]:
    """Return the parameters nearest to the measured times, errors beyond 5 % counting linearly."""
    from scipy.optimize import least_squares

    chosen = _spread_rows(len(measured_s))
    few = {name: column[chosen] for name, column in samples.items()}
    target = np.log(measured_s[chosen])
    start = family.start(chip, dtype)
    names = list(start)

    def errors(logs: Array) -> Array:
        values = dict(zip(names, np.exp(logs), strict=True))
        return np.log(family.physics(few, chip, dtype, values)) - target

    begin = np.log(np.asarray(list(start.values())))
    bounds = (begin - 4.0, begin + 4.0)
    found = least_squares(errors, begin, bounds=bounds, loss="soft_l1", f_scale=0.05, max_nfev=60)
    return {name: float(f"{np.exp(v):.5g}") for name, v in zip(names, found.x, strict=True)}


def _spread_rows(rows: int) -> NDArray[np.int64]:
    """Return up to _MOST_ROWS row numbers, the same for the same table."""
    if rows <= _MOST_ROWS:
        return np.arange(rows)
    generator = rng.stream(rows, "rows of a fit")
    return np.sort(generator.choice(rows, _MOST_ROWS, replace=False))


def _covered(axes: tuple[Axis, ...], coordinates: tuple[Array, ...]) -> tuple[Axis, ...]:
    """Leave out the knots that no sample comes near: the edge then holds beyond."""
    kept = []
    for axis, values in zip(axes, coordinates, strict=True):
        knots = axis.knots
        low = max(0, int(np.searchsorted(knots, values.min(), side="right")) - 1)
        high = min(len(knots) - 1, int(np.searchsorted(knots, values.max(), side="left")))
        kept.append(Axis(axis.name, knots[low : max(high, low) + 1]))
    return tuple(kept)
