"""What a coarse surface leaves, on small finer tables over two directions each.

log(measured / physics) = surface(x) + sum over tables of table(two of the places of a shape).
Kernels change at single row counts and with the last wave of tiles; a grid over all sizes that
is fine enough for that would have ten times as many knots as there are rows. An additive model
(Hastie, Tibshirani: Generalized Additive Models, 1990), fitted by turns (their backfitting).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moesim.cost.surface import Array, Axis, Rising, Smoothing, Surface, evaluate, fit_surface

Places = Mapping[str, Array]
"""Where samples lie, by the name of an axis."""


def evaluate_details(details: Sequence[Surface], places: Places) -> Array:
    """Return the sum of the tables at places; a logarithm."""
    total = np.zeros(np.shape(next(iter(places.values()))))
    for table in details:
        total += evaluate(table, [places[axis.name] for axis in table.axes])
    return total


@dataclass(frozen=True, slots=True)
class Layer:
    """One surface of a sum: where rows and pairs that are not to fall lie on its axes."""

    axes: tuple[Axis, ...]
    rows: tuple[Array, ...]
    before: tuple[Array, ...] = ()
    after: tuple[Array, ...] = ()


def layer(axes: tuple[Axis, ...], rows: Places, pairs: tuple[Places, Places] | None) -> Layer:
    """Return the layer of a table, its knots cut to those around the rows."""
    names = [axis.name for axis in axes]
    on = tuple(rows[name] for name in names)
    cut = tuple(_around(axis, values) for axis, values in zip(axes, on, strict=True))
    if pairs is None:
        return Layer(cut, on)
    before, after = (tuple(places[name] for name in names) for places in pairs)
    return Layer(cut, on, before, after)


def _around(axis: Axis, values: Array) -> Axis:
    low = max(0, int(np.searchsorted(axis.knots, values.min(), side="right")) - 1)
    high = int(np.searchsorted(axis.knots, values.max(), side="left")) + 1
    return Axis(axis.name, axis.knots[low:high])


_TURNS = 2
"""Rounds over all tables: a third changes the errors by less than 0.05 %."""


_SMOOTHING = 0.3
"""Of finer tables beside a surface that is smoothed axis by axis."""


def fit_layers(
    layers: Sequence[Layer],
    residual: Array,
    smoothing: float | Smoothing,
    log_growth: Array | None,
) -> tuple[Surface, ...]:
    """Return surfaces whose sum is nearest to `residual`, each fitted to what the others leave.

    `smoothing` by axis is that of the first layer alone; `log_growth` is what physics gains between
    the pairs of all layers. The first layer comes last again, so that it takes up where the sum
    would fall.
    """
    flat = [Surface(one.axes, (0.0,) * _knots(one.axes)) for one in layers]
    order = [*range(len(layers))] * _TURNS + [0] if len(layers) > 1 else [0]
    parts = [np.zeros_like(residual) for _ in layers]
    grown = [np.zeros(()) if log_growth is None else np.zeros_like(log_growth) for _ in layers]
    for i in order:
        one, left = layers[i], residual - sum(parts) + parts[i]
        smooth = smoothing if i == 0 or isinstance(smoothing, float) else _SMOOTHING
        rising = None
        if log_growth is not None:
            rising = Rising(one.before, one.after, log_growth + sum(grown) - grown[i])
        flat[i] = fit_surface(one.axes, one.rows, left, smooth, rising)
        parts[i] = evaluate(flat[i], one.rows)
        if rising is not None:
            grown[i] = evaluate(flat[i], one.after) - evaluate(flat[i], one.before)
    return tuple(flat)


def _knots(axes: tuple[Axis, ...]) -> int:
    return int(np.prod([len(axis.knots) for axis in axes]))


def scaled(details: Sequence[Surface], by: float) -> tuple[Surface, ...]:
    """Return the tables, all values times `by`."""
    return tuple(
        replace(table, values=tuple(by * value for value in table.values)) for table in details
    )
