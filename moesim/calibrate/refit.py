"""A curve of one device fitted anew to a handful of shapes on another.

All parameters may move, each pulled to the donor's value; the donor's surface is kept and scaled,
its scale pulled to 1; what is left of the samples then bends the surface smoothly. One rule for
every family and device, chosen on `moesim profile transfer` from H100 to H200, B200 and A100 with
40 random shapes: median / p90 of the absolute error on other shapes in percent, mean over 134
operators, libraries, dtypes and devices:

  the donor's curve on the new datasheet, nothing fitted    17.7 / 37
  four parameters by name, surface dropped; kept            10.2 / 28;  8.7 / 26
  all parameters without a pull, surface dropped; kept       7.0 / 23;  5.7 / 19
  all parameters pulled by 0.1 or 0.2, surface kept          5.6 / 18
  the same with the surface scaled                           5.4 / 17
  the same, then bent with smoothing 3; 1; 0.3; 0.1          5.3;  5.2;  5.1;  5.1 / 17
  the same, surface dropped, then bent with 0.3              5.8 / 19
  parameters kept, surface bent alone (smoothing 1)          6.0 / 19
  5; 10; 20; 80; 160 shapes, bent even with few of them       9.0; 6.9; 5.7; 4.7; 4.4

Fewer than a dozen samples only scale the surface: bending to three or seven published rows made the
rows left out in turn no better, and all-reduce over 20 racks worse (40 against 10 %).

Pulls of 0.1 to 0.4, squared instead of robust ones and other limits of robustness differ by less
than 0.2 points. Keeping times rising costs dense products 0.2 points. With five shapes the p90 of a
distant device can be worse than without any (A100: 54 against 41).
"""

from dataclasses import replace

import numpy as np

from moesim.cost.curve_fit import rising_pairs
from moesim.cost.curves import (
    Array,
    Chip,
    Curve,
    Family,
    Parameters,
    Samples,
    local_residual,
    log_residual,
    predict_s,
    smooth_residual,
)
from moesim.cost.details import scaled
from moesim.cost.surface import Surface, evaluate, fit_surface
from moesim.errors import CalibrationError

PULL = 0.2
"""A parameter a factor of 1.28 off the donor's weighs as much as one sample 5 % off; beyond that
both count linearly, so that few parameters move far and the others stay."""

SMOOTHING = 0.3
"""Of what bends the surface after that."""

_ROBUST = 0.05
_SHARES = ("fraction", "efficiency", "blend")
"""Endings of parameters that count as one above one."""
_BELOW_ONE = 0.97
"""Where the search for such a share begins: at one and above, a small step would change nothing."""
_FARTHEST = 4.0
"""Of the logarithm of a parameter, both ways: as in the first fit."""
_SCALES = (0.0, 2.0)
"""Of the donor's surface: dropped to doubled."""


LEAST_TO_BEND = 12
"""Samples below which the surface is only scaled: a handful says nothing of its shape."""


def refit(curve: Curve, family: Family, samples: Samples, seconds: Array, chip: Chip) -> Curve:
    """Return `curve` fitted anew to a few samples that were measured on `chip`.

    The errors stated are on these samples. Needs scipy (the extra `calibrate`). Raises
    CalibrationError where there is no sample or a time is not a positive number.
    """
    _check(samples, seconds)
    bent = _pulled(curve, family, samples, seconds, chip)
    if len(seconds) >= LEAST_TO_BEND:
        bent = replace(bent, surface=_bent(bent, family, samples, seconds, chip))
    error = np.abs(predict_s(family, bent, samples, chip) / seconds - 1)
    return replace(
        bent,
        rows=len(seconds),
        median_error=float(np.median(error)),
        p90_error=float(np.quantile(error, 0.9)),
        source=f"{curve.source}; fitted anew to {len(seconds)} shapes on {chip.name}",
    )


def _check(samples: Samples, seconds: Array) -> None:
    if len(seconds) == 0:
        raise CalibrationError("no samples to fit a curve anew to")
    if any(len(column) != len(seconds) for column in samples.values()):
        raise CalibrationError("the columns of the samples and their times differ in length")
    if not np.all(np.isfinite(seconds) & (seconds > 0)):
        raise CalibrationError("a measured time is not a positive number")


def _pulled(curve: Curve, family: Family, samples: Samples, seconds: Array, chip: Chip) -> Curve:
    """Return the curve with parameters and scaled surfaces nearest to the samples and the donor.

    Minimises sum rho(log predicted - log measured) + sum rho(PULL (log parameter - log lent))
    + rho(PULL (scale - 1)), rho(e) = e^2 up to about 5 %, linear beyond.
    """
    from scipy.optimize import least_squares

    names = list(curve.parameters)
    lent = np.append(np.log(_lent(curve.parameters, 1.0)), 1.0)
    begin = np.append(np.log(_lent(curve.parameters, _BELOW_ONE)), 1.0)
    relief = smooth_residual(family, curve, samples, chip)
    target = np.log(seconds) - local_residual(family, curve, samples)

    def errors(asked: Array) -> Array:
        values = dict(zip(names, np.exp(asked[:-1]), strict=True))
        physics = np.log(family.physics(samples, chip, curve.dtype, values))
        return np.concatenate([physics + asked[-1] * relief - target, PULL * (asked - lent)])

    low, high = lent - _FARTHEST, lent + _FARTHEST
    low[-1], high[-1] = _SCALES
    found = least_squares(
        errors, begin, bounds=(low, high), loss="soft_l1", f_scale=_ROBUST, max_nfev=40
    ).x
    values = {name: float(f"{np.exp(v):.5g}") for name, v in zip(names, found, strict=False)}
    scale = float(found[-1])
    surface, details = _scaled(curve.surface, scale), scaled(curve.details, scale)
    return replace(curve, parameters=values, surface=surface, details=details)


def _lent(parameters: Parameters, most: float) -> list[float]:
    """Return the donor's values, shares no higher than `most`."""
    return [min(value, most) if name.endswith(_SHARES) else value
            for name, value in parameters.items()]  # fmt: skip


def _scaled(surface: Surface | None, scale: float) -> Surface | None:
    return surface and Surface(surface.axes, tuple(scale * value for value in surface.values))


def _bent(curve: Curve, family: Family, samples: Samples, seconds: Array, chip: Chip) -> Surface:
    """Return the surface with what the curve leaves of the samples, smoothly spread, added.

    On the donor's knots; where a family is not to fall along an axis, the sum does not.
    """
    axes = family.axes if curve.surface is None else curve.surface.axes
    start = np.zeros(int(np.prod([len(axis.knots) for axis in axes])))
    start = start if curve.surface is None else np.asarray(curve.surface.values)
    physics = family.physics(samples, chip, curve.dtype, curve.parameters)
    residual = np.log(seconds / physics) - log_residual(family, curve, samples, chip)
    rising = rising_pairs(family, axes, chip, curve.dtype, curve.parameters)
    if rising is not None:
        donor = Surface(axes, tuple(start))
        grown = evaluate(donor, rising.after) - evaluate(donor, rising.before)
        rising = replace(rising, log_growth=rising.log_growth + grown)
    more = fit_surface(axes, family.coordinates(samples), residual, SMOOTHING, rising)
    return Surface(axes, tuple(round(float(v), 4) for v in start + np.asarray(more.values)))
