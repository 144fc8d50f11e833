"""How long an operator takes on one device with one library: physics times a residual surface.

A family is a physics formula with a handful of parameters; a curve is what fitting it to the
measurements of one (device, library, dtype, variant) gave.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from moesim import rng
from moesim.cost.sites import Layout, Sites, evaluate_sites, fit_sites
from moesim.cost.surface import (
    Axis,
    Rising,
    Surface,
    evaluate,
    fit_surface,
    octaves_outside,
    refined,
)

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
    """An operator at each place: the inverse of `coordinates`, needed where `rising` is given."""
    rising: tuple[tuple[float, ...], ...] = ()
    """Directions on the axes along which the fitted time is not to fall."""
    let_be: float = 0.0
    """Fall in half an octave that a fit leaves alone, for kernels that change with the shape."""
    around: float = 0.0
    """Octaves beside the grid at which a fit looks for falls too: the physics may be flat there."""
    quantum: Mapping[str, float] = field(default_factory=dict)
    """By what share the time may fall when a size grows, by the name of the size: what tiles, waves
    and changes of kernel do within what was measured. Other sizes do not let it fall."""
    quantum_beyond: float = 0.0
    """The same for any size where one of both operators is extrapolated."""
    sites: Layout | None = None
    """How what the surface leaves is kept at measured shapes; None: not at all."""


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
    sites: Sites | None = None
    """What the surface leaves at measured shapes."""


def predict_s(family: Family, curve: Curve, samples: Samples, chip: Chip) -> Array:
    """Return the seconds of each sample, never less than the family's bound."""
    seconds = family.physics(samples, chip, curve.dtype, curve.parameters)
    seconds = seconds * np.exp(log_residual(family, curve, samples))
    if family.bound_s is None:
        return seconds
    return np.maximum(seconds, family.bound_s(samples, chip, curve.dtype))


def log_residual(family: Family, curve: Curve, samples: Samples) -> Array:
    """Return log(measured / physics) as the curve keeps it: its surface and its sites."""
    if curve.surface is None:
        return local_residual(family, curve, samples)
    smooth = evaluate(curve.surface, family.coordinates(samples))
    return smooth + local_residual(family, curve, samples)


def local_residual(family: Family, curve: Curve, samples: Samples) -> Array:
    """Return what the curve keeps at measured shapes beyond its surface: a logarithm."""
    if curve.sites is None or family.sites is None:
        return np.zeros(())
    return evaluate_sites(curve.sites, family.sites.places(samples))


def octaves_beyond(family: Family, curve: Curve, samples: Samples) -> Array:
    """Return how far each sample lies outside of what the curve was fitted to, in octaves.

    The distances along all axes of the surface are summed. Up to half an octave beyond the
    outermost row counts as inside; so does a gap between rows, since the axes are all that is
    kept of them. Without a surface (a curve lent by another device) the family's own axes count.
    """
    axes = curve.surface.axes if curve.surface else family.axes
    return octaves_outside(axes, family.coordinates(samples))


def is_extrapolated(family: Family, curve: Curve, samples: Samples) -> NDArray[np.bool_]:
    """Tell the samples that lie outside of what the curve was fitted to."""
    return octaves_beyond(family, curve, samples) > 0.0


def uncertainty(family: Family, curve: Curve, samples: Samples) -> Array:
    """Return the relative standard deviation of each prediction.

    From the median error of the fit (a median absolute error of e is a deviation of 1.48 e),
    doubled for each two octaves outside of what was measured.
    """
    outside = octaves_beyond(family, curve, samples)
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
    """Return the family fitted to measured times: parameters, then the surface, then the sites.

    Needs scipy (the extra `calibrate`). The same rows give the same curve.
    """
    parameters = fit_parameters(family, samples, measured_s, chip, dtype)
    physics = family.physics(samples, chip, dtype, parameters)
    residual = np.log(measured_s / physics)
    coordinates = family.coordinates(samples)
    axes = _covered(family.axes, coordinates)
    rising = rising_pairs(family, axes, chip, dtype, parameters)
    surface = fit_surface(axes, coordinates, residual, family.smoothing, rising)
    curve = Curve(
        family=family.name, dtype=dtype, variant=about.variant, parameters=parameters,
        surface=surface, rows=len(measured_s), median_error=1.0, p90_error=1.0,
        source=about.source,
    )  # fmt: skip
    left = residual - evaluate(surface, coordinates)
    curve = replace(curve, sites=_sites(family, curve, samples, left, chip))
    error = np.abs(np.expm1(local_residual(family, curve, samples) - left))
    return replace(
        curve, median_error=float(np.median(error)), p90_error=float(np.quantile(error, 0.9))
    )


def _sites(family: Family, curve: Curve, samples: Samples, left: Array, chip: Chip) -> Sites | None:
    """Return the sites of what physics and surface leave, for a family that has any."""
    if family.sites is None:
        return None

    def log_time(asked: Samples) -> Array:
        return np.log(predict_s(family, curve, asked, chip))

    return fit_sites(family.sites, family.sites.places(samples), left, log_time)


_RISING_STEP = 0.5
"""Octaves between the points at which a fit looks for falls."""


def rising_pairs(
    family: Family, axes: tuple[Axis, ...], chip: Chip, dtype: str, parameters: Parameters
) -> Rising | None:
    """Return pairs of operators of which the second is the larger, for a family that names any."""
    if family.samples_at is None or not family.rising:
        return None
    pairs = [_steps(axes, direction, family.around) for direction in family.rising]
    before, after = (
        tuple(np.concatenate(columns) for columns in zip(*places, strict=True))
        for places in zip(*pairs, strict=True)
    )
    small, large = (
        np.log(family.physics(family.samples_at(places), chip, dtype, parameters))
        for places in (before, after)
    )
    return Rising(before, after, large - small + family.let_be)


def _steps(
    axes: tuple[Axis, ...], direction: tuple[float, ...], around: float
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Return points all over the grid and around it, and those a step further in `direction`.

    Points lie on the knots, and closer than that along the first axis that grows.
    """
    main = next(i for i, part in enumerate(direction) if part > 0.0)
    lines = [
        np.asarray(axis.knots if part else _widened(axis.knots, around))
        for axis, part in zip(axes, direction, strict=True)
    ]
    line = refined(axes[main], _RISING_STEP)
    lines[main] = line[:-1]
    steps = [np.zeros_like(other) for other in lines]
    steps[main] = np.diff(line) / direction[main]
    before = [grid.ravel() for grid in np.meshgrid(*lines, indexing="ij")]
    step = np.meshgrid(*steps, indexing="ij")[main].ravel()
    after = [place + part * step for place, part in zip(before, direction, strict=True)]
    return tuple(before), tuple(after)


def _widened(knots: tuple[float, ...], by: float) -> tuple[float, ...]:
    return (knots[0] - by, *knots, knots[-1] + by) if by else knots


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
    """Cut each axis to where samples lie: the edge then holds beyond, and counts as outside.

    The outermost knots are those next to the outermost samples, but lie no further than `_MARGIN`
    from them (to a thousandth); knots close to a new end make room for it.
    """
    return tuple(
        _cut(axis, float(values.min()), float(values.max()))
        for axis, values in zip(axes, coordinates, strict=True)
    )


_MARGIN = 0.5
"""Octaves: half a step of most tables, so that shapes at the rim of a table lie inside."""
_LEAST_CELL = 0.25
"""Knots nearer to each other would be told apart by noise."""


def _cut(axis: Axis, least: float, most: float) -> Axis:
    knots = axis.knots
    below = max((knot for knot in knots if knot <= least), default=knots[0])
    above = min((knot for knot in knots if knot >= most), default=knots[-1])
    low, high = max(below, round(least - _MARGIN, 3)), min(above, round(most + _MARGIN, 3))
    low, high = min(low, knots[-1]), max(high, knots[0])
    inner = [knot for knot in knots if low + _LEAST_CELL <= knot <= high - _LEAST_CELL]
    return Axis(axis.name, tuple(float(knot) for knot in sorted({low, *inner, max(low, high)})))
