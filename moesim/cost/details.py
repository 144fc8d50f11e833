"""What a coarse surface leaves, on small finer tables over two directions each.

log(measured / physics) = surface(x) + sum over tables of table(two of the places of a shape).
Kernels change at single row counts and with the last wave of tiles; a grid over all sizes that
is fine enough for that would have ten times as many knots as there are rows. An additive model
(Hastie, Tibshirani: Generalized Additive Models, 1990), fitted by turns (their backfitting).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moesim.cost.surface import Array, Axis, Rising, Smoothing, Surface, evaluate, fit_surface

Place = Callable[[str], Array]
"""Where samples lie on the axis of a name."""


@dataclass(frozen=True, slots=True)
class Detail:
    """A table beside the surface."""

    axes: tuple[Axis, ...]
    dtypes: tuple[str, ...] = ()
    """Those that have it; empty: all."""
    held: bool = True
    """Whether it keeps the time from falling; not where a kernel that is slow gives way."""


def evaluate_details(details: Sequence[Surface], place: Place) -> Array:
    """Return the sum of the tables at places; a logarithm."""
    asked = {axis.name for table in details for axis in table.axes}
    places = {name: place(name) for name in sorted(asked)}
    total = np.zeros(())
    for table in details:
        total = total + evaluate(table, [places[axis.name] for axis in table.axes])
    return total


@dataclass(frozen=True, slots=True)
class Layer:
    """One surface of a sum: where rows and pairs that are not to fall lie on its axes."""

    axes: tuple[Axis, ...]
    rows: tuple[Array, ...]
    before: tuple[Array, ...] = ()
    after: tuple[Array, ...] = ()


def layer(detail: Detail, rows: Place, pairs: tuple[Place, Place] | None) -> Layer:
    """Return the layer of a table, its knots cut to those around the rows."""
    names = [axis.name for axis in detail.axes]
    on = tuple(rows(name) for name in names)
    cut = tuple(_around(axis, values) for axis, values in zip(detail.axes, on, strict=True))
    if pairs is None or not detail.held:
        return Layer(cut, on)
    before, after = (tuple(place(name) for name in names) for place in pairs)
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
    the pairs of the layers that have any: what the others gain does not count. Those come first,
    before others can bend towards what they hold; the first layer comes last again, so that it
    takes up where the sum would fall.
    """
    flat = [Surface(one.axes, (0.0,) * _knots(one.axes)) for one in layers]
    switches = [i for i, one in enumerate(layers) if not one.before and layers[0].before]
    order = [*switches, *[i for i in range(len(layers)) if i not in switches]]
    order = [*order * _TURNS, 0] if len(layers) > 1 else [0]
    parts = [np.zeros_like(residual) for _ in layers]
    grown = [np.zeros(()) if log_growth is None else np.zeros_like(log_growth) for _ in layers]
    for i in order:
        one, left = layers[i], residual - sum(parts) + parts[i]
        smooth = smoothing if i == 0 or isinstance(smoothing, float) else _SMOOTHING
        rising = None
        if log_growth is not None and one.before:
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
