"""What the families of transfers share: columns with a default, and terms that add smoothly."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moesim.cost.curves import Chip, Parameters, Samples

Array = NDArray[np.float64]


def together(first: Array, second: Array, sharpness: float) -> Array:
    """Return the p-norm of two times: 1 adds them, infinity takes the slower, below 1 costs more.

    (a^p + b^p)^(1/p), with p held in [0.3, 8] and the larger one taken out, so nothing overflows.
    """
    power = min(max(sharpness, 0.3), 8.0)
    larger = np.maximum(np.maximum(first, second), 1e-30)
    ratio = np.minimum(first, second) / larger
    return np.asarray(larger * (1.0 + ratio**power) ** (1.0 / power))


def beyond(size: Array, threshold: float, steepness: float) -> Array:
    """Return 0 well below the threshold, 1 well above: 1 / (1 + (size / threshold)^-steepness)."""
    share = np.clip(size / threshold, 1e-9, 1e9)
    return np.asarray(1.0 / (1.0 + share**-steepness))


def column(samples: Samples, name: str, otherwise: float) -> Array:
    """Return a column, or a constant where the samples do not have it."""
    if name in samples:
        return np.asarray(samples[name], dtype=np.float64)
    shape = np.shape(next(iter(samples.values())))
    return np.full(shape, otherwise)


def link_rate(samples: Samples, chip: Chip) -> Array:
    """Return the scale-up rate of a device; a column overrules the chip, to fit several at once."""
    return column(samples, "link_bytes_per_s", chip.link_bytes_per_s)


def network_rate(samples: Samples) -> Array:
    """Return the scale-out rate of a device after oversubscription; needed beyond one domain."""
    if np.any(column(samples, "domains", 1.0) > 1.0):
        return np.asarray(samples["network_bytes_per_s"], dtype=np.float64)
    return column(samples, "network_bytes_per_s", np.inf)


_LADDER = np.arange(0.0, 48.0, 0.5)
"""Rungs in octaves: one byte or token to far beyond any message."""


def rising_s(ask: Callable[[Samples], Array], samples: Samples, size: str) -> Array:
    """Return what `ask` says of the samples, made to rise with the column `size`.

    Each sample is read off its own ladder of sizes, log-log linear between half octaves. A rung is
    the geometric mean of the highest at or below it and the lowest at or above it: both rise, a
    curve that rises is left as it is, and a noisy table cannot make a larger message faster.
    """
    sizes = np.ravel(np.asarray(samples[size], dtype=np.float64))
    rows, rungs = len(sizes), len(_LADDER)
    asked = {name: np.repeat(np.ravel(values), rungs) for name, values in samples.items()}
    asked[size] = np.tile(np.exp2(_LADDER), rows)
    logs = np.log(ask(asked)).reshape(rows, rungs)
    below = np.maximum.accumulate(logs, axis=1)
    above = np.minimum.accumulate(logs[:, ::-1], axis=1)[:, ::-1]
    heights = (below + above) / 2.0
    place = np.clip(np.log2(sizes) / _LADDER[1], 0.0, rungs - 1.0)
    lower = np.minimum(place.astype(np.int64), rungs - 2)
    part, row = place - lower, np.arange(rows)
    read = heights[row, lower] * (1.0 - part) + heights[row, lower + 1] * part
    return np.asarray(np.exp(read).reshape(np.shape(samples[size])))


def fraction(parameters: Parameters, name: str) -> float:
    """Return the reached share of a rate, never above one."""
    return min(1.0, parameters[name])
