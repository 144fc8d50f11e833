"""A residual surface: log(measured / physics) on a coarse regular grid, multilinear in between.

Beyond the grid the nearest edge holds, and the distance in octaves says how far outside a point is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
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
    index, fraction = _places(surface.axes, coordinates)
    table = np.asarray(surface.values).reshape([len(axis.knots) for axis in surface.axes])
    total = np.zeros(np.shape(coordinates[0]))
    for corner in product((0, 1), repeat=len(surface.axes)):
        weight = np.ones_like(total)
        for bit, part in zip(corner, fraction, strict=True):
            weight = weight * (part if bit else 1 - part)
        place = zip(index, corner, table.shape, strict=True)
        total += weight * table[tuple(np.minimum(i + bit, size - 1) for i, bit, size in place)]
    return total


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


def fit_surface(
    axes: tuple[Axis, ...], coordinates: Sequence[Array], residual: Array, smoothing: float = 0.3
) -> Surface:
    """Return the surface nearest to `residual` in absolute terms that bends little.

    Minimises sum |r - A v| + smoothing * |second differences of v|^2 by reweighted least squares,
    so that outliers do not pull. Needs scipy (the extra `calibrate`).
    """
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    design = _design(axes, coordinates)
    bend = _second_differences([len(axis.knots) for axis in axes])
    ridge = 1e-3 * sparse.eye(design.shape[1])
    penalty = smoothing * bend.T @ bend + ridge
    weights = np.ones(len(residual))
    values = np.zeros(design.shape[1])
    for _ in range(6):
        normal = design.T @ sparse.diags(weights) @ design + penalty
        values = spsolve(normal.tocsc(), design.T @ (weights * residual))
        error = np.abs(residual - design @ values)
        weights = _RESIDUAL_SCALE / np.maximum(error, _RESIDUAL_SCALE)
    return Surface(axes, tuple(round(float(value), 4) for value in values))


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


def _second_differences(shape: list[int]) -> Any:
    from scipy import sparse

    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    blocks = []
    for axis, size in enumerate(shape):
        if size < 3:
            continue
        a, b, c = (
            np.take(numbers, range(start, size - 2 + start), axis).ravel() for start in range(3)
        )
        rows = np.tile(np.arange(len(a)), 3)
        entries = np.repeat([1.0, -2.0, 1.0], len(a))
        columns = np.concatenate([a, b, c])
        blocks.append(sparse.csr_matrix((entries, (rows, columns)), shape=(len(a), numbers.size)))
    return sparse.vstack(blocks) if blocks else sparse.csr_matrix((0, numbers.size))
