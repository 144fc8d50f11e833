"""Fits a family to measured times: parameters first, then what they leave, on tables and at sites.

Everything here needs scipy (the extra `calibrate`); the same rows give the same curve.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moesim import rng
from moesim.cost.curves import (
    Array,
    Chip,
    Curve,
    Family,
    Parameters,
    Samples,
    local_residual,
    predict_s,
)
from moesim.cost.details import Layer, fit_layers, layer
from moesim.cost.sites import Sites, fit_sites
from moesim.cost.surface import Axis, Rising, evaluate, refined


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
    """Return the family fitted to measured times: parameters, surface and details, then the sites.

    Needs scipy (the extra `calibrate`). The same rows give the same curve.
    """
    parameters = fit_parameters(family, samples, measured_s, chip, dtype)
    physics = family.physics(samples, chip, dtype, parameters)
    residual = np.log(measured_s / physics)
    coordinates = family.coordinates(samples)
    axes = _covered(family.axes, coordinates)
    rising = rising_pairs(family, axes, chip, dtype, parameters)
    layers = [Layer(axes, coordinates), *_details(family, dtype, samples, rising, chip)]
    if rising is not None:
        layers[0] = Layer(axes, coordinates, rising.before, rising.after)
    growth = None if rising is None else rising.log_growth
    surface, *details = fit_layers(layers, residual, family.smoothing, growth)
    curve = Curve(
        family=family.name, dtype=dtype, variant=about.variant, parameters=parameters,
        surface=surface, rows=len(measured_s), median_error=1.0, p90_error=1.0,
        source=about.source, details=tuple(details),
    )  # fmt: skip
    left = residual - evaluate(surface, coordinates)
    for one, table in zip(layers[1:], details, strict=True):
        left = left - evaluate(table, one.rows)
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


_ROWS_PER_KNOT = 0.5
"""Rows for each knot of all details; with fewer there are none."""


def _details(
    family: Family, dtype: str, samples: Samples, rising: Rising | None, chip: Chip
) -> list[Layer]:
    """Return the layers of the finer tables, for a family that has any."""
    if family.place is None:
        return []
    rows, pairs = partial(family.place, samples, chip), None
    if rising is not None and family.samples_at is not None:
        before, after = (
            partial(family.place, family.samples_at(places), chip)
            for places in (rising.before, rising.after)
        )
        pairs = before, after
    wanted = [one for one in family.details if dtype in (one.dtypes or (dtype,))]
    layers = [layer(one, rows, pairs) for one in wanted]
    knots = sum(int(np.prod([len(axis.knots) for axis in one.axes])) for one in layers)
    count = len(next(iter(samples.values())))
    return layers if count >= _ROWS_PER_KNOT * knots else []


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
    let_be = np.broadcast_to(family.let_be, len(pairs))
    left_alone = np.repeat(let_be, [len(places[0][0]) for places in pairs])
    return Rising(before, after, large - small + left_alone)


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

    def fitted(tried: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        start = family.start(chip, dtype) | dict(tried)
        names = [name for name in start if name not in family.counts]

        begin = np.log(np.asarray([start[name] for name in names]))
        pull = np.array([family.switch_pull if name in tried else family.pull for name in names])

        def errors(logs: Array) -> Array:
            values = start | dict(zip(names, np.exp(logs), strict=True))
            missed = np.log(family.physics(few, chip, dtype, values)) - target
            return np.concatenate([missed, pull * (logs - begin)]) if pull.any() else missed

        bounds = (begin - 4.0, begin + 4.0)
        found = least_squares(
            errors, begin, bounds=bounds, loss="soft_l1", f_scale=0.05, max_nfev=60
        )
        best = zip(names, np.exp(found.x), strict=True)
        return float(found.cost), start | {name: float(f"{v:.5g}") for name, v in best}

    return min(map(fitted, family.tries), key=lambda one: one[0])[1]


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
