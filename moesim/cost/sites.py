"""What is left of measurements after physics and surface, kept where shapes were measured.

A library tunes its kernels for some shapes (a configuration file that exists for one model, a
fall-back kernel for another), which no smooth surface holds. With x the place of an operator among
shapes (for MoE: hidden, width, experts, top_k; in octaves) and t the size that runs at every shape
(rows; in octaves)

    log(measured / (physics * surface)) = sum over sites s of K(x, s) c_s(t),
    K(x, s) = exp(-sum over coordinates i of |x_i - s_i| / reach_i),

with c_s linear between the knots of t: the mean of a Gaussian process with an Ornstein-Uhlenbeck
kernel (Rasmussen, Williams: Gaussian Processes for Machine Learning, 2006, eq. 4.18; the sites are
its inducing points, eq. 8.11). At a site it is what the rows there say, shrunk the more the fewer
they are; between sites a blend; a few reaches from all sites nothing. For a family to have sites it
names a `Layout`; the fit is `fit_sites`, and profiles keep c in thousandths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = tuple[Array, ...]
"""One array per coordinate of the sites, then t; all in octaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the sites of a family lie."""

    names: tuple[str, ...]
    """Of the coordinates among shapes."""
    reach: tuple[float, ...]
    """Octaves along each of them after which a site counts 1/e."""
    step: float
    """Octaves between the knots of t."""
    most: int
    """Sites that are kept at most: those that the others explain least."""
    places: Callable[[Mapping[str, Array]], Places]
    """Where samples lie."""
    samples_at: tuple[Callable[[Places], Mapping[str, Array]], ...]
    """An operator at each place; several where operators at one place differ in how they grow."""
    rising: tuple[tuple[float, ...], ...]
    """Directions among the places (t last) in which the fitted time is not to fall."""


@dataclass(frozen=True)
class Sites:
    """Sites of one curve: what they add to the logarithm of its time."""

    names: tuple[str, ...]
    reach: tuple[float, ...]
    knots: tuple[float, ...]
    """Of t."""
    places: tuple[tuple[float, ...], ...]
    """Of each site."""
    values: tuple[float, ...]
    """c of each site at each knot, the knots of a site together."""

    @cached_property
    def table(self) -> Array:
        """c, [sites, knots]."""
        table: Array = np.reshape(np.asarray(self.values), (len(self.places), len(self.knots)))
        return table

    @cached_property
    def located(self) -> Array:
        """The places, [sites, coordinates]."""
        return np.asarray(self.places)

    @cached_property
    def scaled(self) -> Array:
        """The places in units of the reach, [sites, coordinates]."""
        scaled: Array = self.located / np.asarray(self.reach)
        return scaled


def evaluate_sites(sites: Sites, places: Places) -> Array:
    """Return what the sites add to the logarithm of the time at places."""
    shape = np.shape(places[0])
    scaled = np.stack([np.ravel(p) for p in places[:-1]], axis=1) / np.asarray(sites.reach)
    place, inverse = _distinct(scaled)
    blocks = [place[i : i + _BLOCK] for i in range(0, max(len(place), 1), _BLOCK)]
    known = np.concatenate([_kernel(block, sites.scaled) @ sites.table for block in blocks])
    lower, part = _between(sites.knots, np.ravel(places[-1]))
    found = known[inverse, lower] * (1.0 - part) + known[inverse, lower + 1] * part
    return found.reshape(shape)


_BLOCK = 1024
"""Places that are evaluated together, so that what lies between stays in the cache."""
_FEW = 16
"""Places from which on it is worth looking for equal ones."""


def _distinct(scaled: Array) -> tuple[Array, NDArray[np.int64]]:
    if len(scaled) < _FEW:
        return scaled, np.arange(len(scaled))
    code = np.zeros(len(scaled), dtype=np.int64)
    for column in scaled.T:
        values, number = np.unique(column, return_inverse=True)
        # numbered anew after each column, so that the product of two counts is the most there is
        code = np.unique(code * len(values) + number, return_inverse=True)[1]
    first = np.unique(code, return_index=True)[1]
    return scaled[first], code


def _kernel(places: Array, sites: Array) -> Array:
    apart = np.zeros((len(places), len(sites)))
    for i in range(sites.shape[1]):
        apart += np.abs(places[:, i, None] - sites[None, :, i])
    kernel: Array = np.exp(-apart)
    return kernel


def _between(knots: Sequence[float] | Array, at: Array) -> tuple[NDArray[np.int64], Array]:
    """Return the lower knot of each t and how far towards the next it is; the ends hold beyond."""
    place = np.interp(at, knots, np.arange(len(knots)))
    lower = np.minimum(place.astype(np.int64), len(knots) - 2)
    return lower, place - lower


def nearest(sites: Sites, known: Mapping[int, Array]) -> tuple[Array, ...]:
    """Return for each operator the place of the site nearest to the coordinates known of it."""
    apart = sum(
        np.abs(values[:, None] / sites.reach[i] - sites.scaled[None, :, i])
        for i, values in known.items()
    )
    rows = sites.located[np.argmin(apart, axis=1)]
    return tuple(known[i] if i in known else rows[:, i] for i in range(rows.shape[1]))


_RESIDUAL_SCALE = 0.03
"""Errors below 3 % count as squares, above as absolute values: the repeat noise of the tables."""
_AMPLITUDE = 0.1
"""Deviation expected of a site: against the noise it says how many rows move it."""
_MEMORY = 4.0
"""Octaves of t over which the residual of a site is one and the same, but for 1/e."""
_FALL_WEIGHT = 300.0
_WEIGHED = 8
"""Rounds that weigh the rows anew; those after look for falls only, until none comes or goes."""
_ROUNDS = 24
_LEAST_GAIN = 0.01
"""Mean residual of a site beyond what the others say, below which it is not kept."""

Growth = Callable[[Mapping[str, Array]], Array]
"""The logarithm of the time of samples without sites."""


def fit_sites(layout: Layout, places: Places, residual: Array, log_time: Growth) -> Sites | None:
    """Return the sites that residuals ask for; None where they ask for none.

    Minimises sum w (residual - sites)^2 + (0.03 / 0.1)^2 c' (K x T^-1) c, w as in `fit_surface`,
    K the kernel between sites and T = exp(-|t - t'| / 4) between knots; falls of log_time + sites
    in the directions that the layout names are pulled to zero at all measured shapes.
    """
    scaled = np.stack(places[:-1], axis=1) / np.asarray(layout.reach)
    measured, inverse = np.unique(scaled, axis=0, return_inverse=True)
    low, high = np.floor(places[-1].min()), places[-1].max()
    knots = low + layout.step * np.arange(max(2, int(np.ceil((high - low) / layout.step)) + 1))
    rows = _Rows(measured, inverse.ravel(), *_between(knots, places[-1]), knots, residual)
    chosen = _chosen(rows, layout.most)
    if not chosen:
        return None
    sites = measured[np.sort(chosen)]
    table = _solved(rows, sites, _Falls.of(layout, rows, sites, log_time))
    return Sites(
        names=layout.names,
        reach=layout.reach,
        knots=tuple(float(knot) for knot in knots),
        places=tuple(tuple(_written(v) for v in site) for site in sites * np.asarray(layout.reach)),
        values=tuple(round(float(value), 3) for value in table.ravel()),
    )


def _written(place: float) -> float:
    """Return a place as it is after its size was written to a profile."""
    return log2(float(f"{2.0**place:.6g}"))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Measured rows: which place each is at, where between the knots, and what is left of it."""

    measured: Array
    place: NDArray[np.int64]
    lower: NDArray[np.int64]
    part: Array
    knots: Array
    residual: Array

    def sums(self, near: Array, far: Array, at: NDArray[np.int64]) -> Array:
        """Return sums by place and knot: `near` at the knot `at`, `far` at the one after."""
        size = len(self.knots)
        count = len(self.measured) * size
        here = np.bincount(self.place * size + at, near, count)
        after = np.bincount(self.place * size + at + 1, far, count)
        return np.asarray(here + after, dtype=np.float64).reshape(-1, size)


def _chosen(rows: _Rows, most: int) -> list[int]:
    """Return the places to keep, each the one that those before explain least."""
    near = 1.0 - rows.part
    count = rows.sums(near, rows.part, rows.lower)
    mean = rows.sums(near * rows.residual, rows.part * rows.residual, rows.lower)
    mean /= count + (_RESIDUAL_SCALE / _AMPLITUDE) ** 2
    kernel = _kernel(rows.measured, rows.measured)
    chosen: list[int] = []
    left = mean
    while len(chosen) < min(most, len(mean)):
        score = (count * np.abs(left)).sum(axis=1)
        score[chosen] = 0.0
        best = int(np.argmax(score))
        if score[best] <= _LEAST_GAIN * count[best].sum():
            break
        chosen.append(best)
        inner = kernel[np.ix_(chosen, chosen)]
        left = mean - kernel[:, chosen] @ np.linalg.solve(inner, mean[chosen])
    return chosen


@dataclass(frozen=True, slots=True)
class _Falls:
    """Pairs of places of which the second is the larger, by what the sites weigh at them."""

    before: tuple[Array, NDArray[np.int64], Array]
    """Kernel to the sites; lower knot; part."""
    after: tuple[Array, NDArray[np.int64], Array]
    growth: Array

    @classmethod
    def of(cls, layout: Layout, rows: _Rows, sites: Array, log_time: Growth) -> "_Falls":
        reach = np.asarray(layout.reach)
        half = np.arange(rows.knots[0], rows.knots[-1] + 1e-9, layout.step / 2)
        shapes = np.repeat(rows.measured * reach, len(half), axis=0)
        start = np.column_stack([shapes, np.tile(half, len(rows.measured))])
        before = np.concatenate([start for _ in layout.rising])
        after = np.concatenate([start + np.asarray(direction) for direction in layout.rising])
        growth = [
            log_time(samples_at(tuple(after.T))) - log_time(samples_at(tuple(before.T)))
            for samples_at in layout.samples_at
        ]
        weighed = [
            (_kernel(p[:, :-1] / reach, sites), *_between(rows.knots, p[:, -1]))
            for p in (before, after)
        ]
        return cls(weighed[0], weighed[1], np.min(growth, axis=0))

    def steps(self, table: Array) -> Array:
        """Return what sites and the rest gain over each pair."""
        return self.growth + _value(self.after, table) - _value(self.before, table)

    def matrix(self, falling: NDArray[np.bool_], knots: int) -> Array:
        """Return what each c adds to the growth over the pairs that fall."""
        found = _weights(self.after, falling, knots) - _weights(self.before, falling, knots)
        return found.reshape(len(found), -1)


def _value(weighed: tuple[Array, NDArray[np.int64], Array], table: Array) -> Array:
    kernel, lower, part = weighed
    known, row = kernel @ table, np.arange(len(kernel))
    found: Array = known[row, lower] * (1.0 - part) + known[row, lower + 1] * part
    return found


def _weights(
    weighed: tuple[Array, NDArray[np.int64], Array], chosen: NDArray[np.bool_], knots: int
) -> Array:
    kernel, lower, part = (array[chosen] for array in weighed)
    hat, row = np.zeros((len(kernel), knots)), np.arange(len(kernel))
    hat[row, lower], hat[row, lower + 1] = 1.0 - part, part
    found: Array = kernel[:, :, None] * hat[:, None, :]
    return found


def _solved(rows: _Rows, sites: Array, falls: _Falls) -> Array:
    """Return c by reweighted least squares. Needs scipy (the extra `calibrate`)."""
    from scipy.linalg import solve

    kernel, size = _kernel(rows.measured, sites), len(rows.knots)
    along = np.exp(-np.abs(rows.knots[:, None] - rows.knots[None, :]) / _MEMORY)
    penalty = np.kron(_kernel(sites, sites), np.linalg.inv(along))
    penalty *= (_RESIDUAL_SCALE / _AMPLITUDE) ** 2
    weights = np.ones(len(rows.residual))
    table = np.zeros((len(sites), size))
    known = np.zeros(0, dtype=bool)
    for number in range(_ROUNDS):
        normal, right = _normal(rows, kernel, weights)
        falling = falls.steps(table) < 0.0
        if number > _WEIGHED and np.array_equal(falling, known):
            break
        known = falling
        if falling.any():
            matrix = falls.matrix(falling, size)
            normal += _FALL_WEIGHT * matrix.T @ matrix
            right = right - _FALL_WEIGHT * matrix.T @ falls.growth[falling]
        table = solve(normal + penalty, right, assume_a="pos").reshape(table.shape)
        if number < _WEIGHED:
            found = _value((kernel[rows.place], rows.lower, rows.part), table)
            weights = _RESIDUAL_SCALE / np.maximum(np.abs(rows.residual - found), _RESIDUAL_SCALE)
    return table


def _normal(rows: _Rows, kernel: Array, weights: Array) -> tuple[Any, Any]:
    """Return matrix and right side of the least squares, [sites * knots]."""
    near, size = 1.0 - rows.part, len(rows.knots)
    same = rows.sums(weights * near**2, weights * rows.part**2, rows.lower)
    next_to = rows.sums(weights * near * rows.part, np.zeros_like(near), rows.lower)
    right = kernel.T @ rows.sums(
        weights * near * rows.residual, weights * rows.part * rows.residual, rows.lower
    )
    count = kernel.shape[1]
    normal = np.zeros((count, size, count, size))
    for knot in range(size):
        normal[:, knot, :, knot] = kernel.T @ (same[:, knot, None] * kernel)
        if knot + 1 < size:
            block = kernel.T @ (next_to[:, knot, None] * kernel)
            normal[:, knot, :, knot + 1] = block
            normal[:, knot + 1, :, knot] = block
    return normal.reshape(count * size, -1), right.ravel()
