"""A residual surface: log(measured / physics) on a coarse regular grid, multilinear in between.

Beyond the grid the nearest edge holds, and the distance in octaves says how far outside a point is.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of the grid: what it is, and its knots in rising order (mostly log2)."""

    name: str
    knots: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Surface:
    """Values at the knots of all axes, the last axis fastest."""

    axes: tuple[Axis, ...]
    values: tuple[float, ...]


def octaves(name: str, low: float, high: float, step: float) -> Axis:
    """Return an axis of log2 from `low` to `high` in steps of `step`."""
    count = int(np.ceil((high - low) / step)) + 1
    return Axis(name, tuple(float(low + i * step) for i in range(count)))


def evaluate(surface: Surface, coordinates: Sequence[Array]) -> Array:
    """Return the surface at points; one array per axis, all of one shape."""
    table = np.asarray(surface.values)
    shape = np.shape(coordinates[0])
    flat = [np.ravel(values) for values in coordinates]
    total = np.empty(flat[0].shape)
    for first in range(0, len(total), _BLOCK):
        part = slice(first, first + _BLOCK)
        total[part] = _evaluate_block(surface.axes, table, [values[part] for values in flat])
    return total.reshape(shape)


_BLOCK = 16384
"""Points that are evaluated together, so that what lies between stays in the cache."""


def _evaluate_block(axes: Sequence[Axis], table: Array, coordinates: Sequence[Array]) -> Array:
    index, fraction = _places(axes, coordinates)
    sizes = [len(axis.knots) for axis in axes]
    lower = np.zeros(len(coordinates[0]), dtype=np.int64)
    steps: list[int] = []
    for place, size in zip(index, sizes, strict=True):
        lower = lower * size + place
        steps = [step * size for step in steps] + [1 if size > 1 else 0]
    corners = [lower]
    for step in steps:
        corners = [corner + far for corner in corners for far in (0, step)]
    values = [table[corner] for corner in corners]
    for part in reversed(fraction):
        values = [a + (b - a) * part for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def evaluate_one(surface: Surface, point: Sequence[float]) -> float:
    """Return the surface at one point, in plain Python: what `evaluate` gives, sooner."""
    values, corners, parts = surface.values, [0], []
    for axis, value in zip(surface.axes, point, strict=True):
        size = len(axis.knots)
        lower, part = _place_on(axis.knots, value) if size > 1 else (0, 0.0)
        if part:
            parts.append(part)
            corners = [
                c for corner in corners for c in (corner * size + lower, corner * size + lower + 1)
            ]
        else:
            corners = [corner * size + lower for corner in corners]
    found = [values[corner] for corner in corners]
    for part in reversed(parts):
        found = [a + (b - a) * part for a, b in zip(found[::2], found[1::2], strict=True)]
    return found[0]


def evaluate_pair(surface: Surface, x: float, y: float) -> float:
    """Return a surface of two axes at one point: `evaluate_one`, sooner."""
    first, second = surface.axes
    xs, ys, values = first.knots, second.knots, surface.values
    size = len(ys)
    if len(xs) < 2 or size < 2:
        return evaluate_one(surface, (x, y))
    i, p = _place_on(xs, x)
    j, q = _place_on(ys, y)
    at = i * size + j
    low, high = values[at], values[at + size]
    low += (values[at + 1] - low) * q
    high += (values[at + size + 1] - high) * q
    return low + (high - low) * p


def _place_on(knots: tuple[float, ...], value: float) -> tuple[int, float]:
    if value <= knots[0]:
        return 0, 0.0
    if value >= knots[-1]:
        return len(knots) - 2, 1.0
    lower = bisect_right(knots, value) - 1
    low = knots[lower]
    return lower, (value - low) / (knots[lower + 1] - low)


def _places(
    axes: Sequence[Axis], coordinates: Sequence[Array]
) -> tuple[list[NDArray[np.int64]], list[Array]]:
    """Return for each axis the lower knot of each point and how far towards the next it is."""
    index, fraction = [], []
    for axis, values in zip(axes, coordinates, strict=True):
        last = len(axis.knots) - 1
        place = np.interp(values, axis.knots, np.arange(last + 1))
        lower = np.minimum(place.astype(np.int64), max(0, last - 1))
        index.append(lower)
        fraction.append(place - lower)
    return index, fraction


def octaves_outside(axes: Sequence[Axis], coordinates: Sequence[Array]) -> Array:
    """Return how far points lie outside the grid, summed over the axes, in units of the axes."""
    outside = np.zeros(np.shape(coordinates[0]))
    for axis, values in zip(axes, coordinates, strict=True):
        low, high = axis.knots[0], axis.knots[-1]
        outside += np.maximum(0.0, low - values) + np.maximum(0.0, values - high)
    return outside


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How much a surface resists second and first differences, along each axis."""

    bend: tuple[float, ...]
    slope: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rising:
    """Pairs of points between which residual and physics together are not to fall."""

    before: tuple[Array, ...]
    """One array per axis, as for `evaluate`."""
    after: tuple[Array, ...]
    log_growth: Array
    """What the logarithm of the physics alone gains from `before` to `after`."""


def refined(axis: Axis, step: float) -> Array:
    """Return the knots of an axis, and so many points between that none is further than `step`."""
    parts = [
        np.linspace(low, high, max(1, round((high - low) / step)), endpoint=False)
        for low, high in pairwise(axis.knots)
    ]
    return np.concatenate([*parts, [axis.knots[-1]]])


def fit_surface(
    axes: tuple[Axis, ...], coordinates: Sequence[Array], residual: Array,
    smoothing: float | Smoothing = 0.3, rising: Rising | None = None,
) -> Surface:  # fmt: skip
    """Return the surface nearest to `residual` in absolute terms that bends little.

    Minimises sum |r - A v| + smoothing * |second differences of v|^2 + a hundredth of that on
    first differences (so that it runs flat where nothing was measured) or what `Smoothing` says
    for each axis, by reweighted least squares, so that outliers do not pull. With `rising`, falls
    of log physics + v between its pairs are pulled to zero (Bollaerts, Eilers, van Mechelen: Simple
    and multiple P-splines regression with shape constraints, 2006). Needs scipy (the extra
    `calibrate`).
    """
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    design = _design(axes, coordinates)
    shape = [len(axis.knots) for axis in axes]
    if not isinstance(smoothing, Smoothing):
        every = (smoothing,) * len(axes)
        smoothing = Smoothing(every, tuple(_FLATNESS * weight for weight in every))
    bend = _differences(shape, (1.0, -2.0, 1.0), smoothing.bend)
    slope = _differences(shape, (-1.0, 1.0), smoothing.slope)
    penalty = bend.T @ bend + slope.T @ slope + 1e-3 * sparse.eye(design.shape[1])
    steps = _design(axes, rising.after) - _design(axes, rising.before) if rising else None
    weights = np.ones(len(residual))
    values = np.zeros(design.shape[1])
    for _ in range(6 if rising is None else 14):
        normal = design.T @ sparse.diags(weights) @ design + penalty
        right = design.T @ (weights * residual)
        if rising is not None and steps is not None:
            falls = sparse.diags((steps @ values + rising.log_growth < 0).astype(float))
            normal = normal + _FALL_WEIGHT * steps.T @ falls @ steps
            right = right - _FALL_WEIGHT * steps.T @ (falls @ rising.log_growth)
        values = spsolve(normal.tocsc(), right)
        error = np.abs(residual - design @ values)
        weights = _RESIDUAL_SCALE / np.maximum(error, _RESIDUAL_SCALE)
    return Surface(axes, tuple(round(float(value), 4) for value in values))


_FLATNESS = 0.01
_FALL_WEIGHT = 300.0
"""Against rows of weight 1: a fall of 1 % weighs as much as some dozens of rows that ask for it."""
_RESIDUAL_SCALE = 0.03
"""Errors below 3 % count as squares, above as absolute values: the repeat noise of the tables."""


def _design(axes: tuple[Axis, ...], coordinates: Sequence[Array]) -> Any:
    from scipy import sparse

    index, fraction = _places(axes, coordinates)
    shape = [len(axis.knots) for axis in axes]
    rows, columns, weights = [], [], []
    for corner in product((0, 1), repeat=len(axes)):
        flat = np.zeros(len(coordinates[0]), dtype=np.int64)
        weight = np.ones(len(coordinates[0]))
        for i, part, bit, size in zip(index, fraction, corner, shape, strict=True):
            flat = flat * size + np.minimum(i + bit, size - 1)
            weight = weight * (part if bit else 1 - part)
        rows.append(np.arange(len(flat)))
        columns.append(flat)
        weights.append(weight)
    entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.csr_matrix(entries, shape=(len(coordinates[0]), int(np.prod(shape))))


def _differences(shape: list[int], stencil: Sequence[float], weights: Sequence[float]) -> Any:
    """Return the matrix of all differences of neighbouring knots, by the weights of their squares.

    One block for each axis.
    """
    from scipy import sparse

    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    count = len(stencil)
    blocks = []
    for axis in range(len(shape)):
        last = shape[axis] - count + 1
        if last < 1:
            continue
        neighbours = [np.take(numbers, range(s, last + s), axis).ravel() for s in range(count)]
        rows = np.tile(np.arange(len(neighbours[0])), count)
        entries = np.sqrt(weights[axis]) * np.repeat(stencil, len(neighbours[0]))
        places = (rows, np.concatenate(neighbours))
        height = len(neighbours[0])
        blocks.append(sparse.csr_matrix((entries, places), shape=(height, numbers.size)))
    return sparse.vstack(blocks) if blocks else sparse.csr_matrix((0, numbers.size))
