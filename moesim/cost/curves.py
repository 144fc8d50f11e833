"""How long an operator takes on one device with one library: physics times a residual surface.

A family is a physics formula with a handful of parameters; a curve is what fitting it to the
measurements of one (device, library, dtype, variant) gave.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moesim.cost.details import Detail, evaluate_details
from moesim.cost.sites import Layout, Sites, evaluate_sites
from moesim.cost.surface import (
    Axis,
    Smoothing,
    Surface,
    evaluate,
    octaves_outside,
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
    smoothing: float | Smoothing = 0.3
    tries: tuple[Mapping[str, float], ...] = ({},)
    """Parameters that replace those of the start, each for one fit, of which the best is kept."""
    counts: tuple[str, ...] = ()
    """Parameters that count in steps: a fit leaves them as a try states them."""
    bound_s: Callable[[Samples, Chip, str], Array] | None = None
    """What no kernel can beat on this chip: samples, chip, dtype. Predictions never go below."""
    samples_at: Callable[[tuple[Array, ...]], Samples] | None = None
    """An operator at each place: the inverse of `coordinates`, needed where `rising` is given."""
    rising: tuple[tuple[float, ...], ...] = ()
    """Directions on the axes along which the fitted time is not to fall."""
    let_be: float | tuple[float, ...] = 0.0
    """Fall in half an octave that a fit leaves alone, for kernels that change with the shape; one
    for all directions that rise, or one for each."""
    around: float = 0.0
    """Octaves beside the grid at which a fit looks for falls too: the physics may be flat there."""
    quantum: Mapping[str, float] = field(default_factory=dict)
    """By what share the time may fall when a size grows, by the name of the size: what tiles, waves
    and changes of kernel do within what was measured. Other sizes do not let it fall."""
    details: tuple[Detail, ...] = ()
    """Finer tables beside the surface; none where rows are few."""
    place: Callable[[Samples, Chip, str], Array] | None = None
    """Where samples lie on an axis of `details`, by its name."""
    quantum_in: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """`quantum` of dtypes whose kernels step further, by dtype."""
    quantum_beyond: float = 0.0
    """The same for any size where one of both operators is extrapolated."""
    switch_pull: float = 0.0
    """What a parameter of a try a factor e off where it began weighs against a row a factor e off.
    """
    pull: float = 0.0
    """The same for all other parameters, for families with more than some tables fix."""
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
    details: tuple[Surface, ...] = ()
    """Finer tables that add to the surface, on axes that the family places samples on."""
    sites: Sites | None = None
    """What the surface leaves at measured shapes."""


def predict_s(family: Family, curve: Curve, samples: Samples, chip: Chip) -> Array:
    """Return the seconds of each sample, never less than the family's bound."""
    seconds = family.physics(samples, chip, curve.dtype, curve.parameters)
    seconds = seconds * np.exp(log_residual(family, curve, samples, chip))
    if family.bound_s is None:
        return seconds
    return np.maximum(seconds, family.bound_s(samples, chip, curve.dtype))


def log_residual(family: Family, curve: Curve, samples: Samples, chip: Chip) -> Array:
    """Return log(measured / physics) as the curve keeps it: surface, details and sites."""
    smooth = smooth_residual(family, curve, samples, chip)
    return smooth + local_residual(family, curve, samples)


def smooth_residual(family: Family, curve: Curve, samples: Samples, chip: Chip) -> Array:
    """Return what surface and details say."""
    total: Array = np.zeros(())
    if curve.surface is not None:
        total = evaluate(curve.surface, family.coordinates(samples))
    if curve.details and family.place is not None:
        place = partial(family.place, samples, chip)
        total = total + evaluate_details(curve.details, place)
    return total


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
