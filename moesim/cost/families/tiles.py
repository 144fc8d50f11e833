"""What tiled matrix products, dense and grouped, have in common: rates, tiles and waves."""

from dataclasses import dataclass

import numpy as np

from moesim.cost.curves import Array, Chip, Parameters
from moesim.cost.families.number_types import NUMBER_TYPES, NumberType, peak_flop_per_s

Tile = tuple[int, int]
"""Rows and columns of the output that one compute unit works on at a time."""

GENERAL = ((64, 64), (64, 128), (128, 128), (64, 256), (128, 256), (256, 128))
"""Tiles that cuBLASLt and CUTLASS choose among for large products."""

BLOCK_SCALED = (
    (64, 16), (64, 32), (64, 64), (64, 128), (128, 16), (128, 32), (128, 64), (128, 96), (128, 128),
)  # fmt: skip
"""Tiles of DeepGEMM, which narrows them until one wave is full and never cuts k
(github.com/deepseek-ai/DeepGEMM, csrc/jit_kernels/heuristics)."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Parameters of a curve on one chip, ready for the formulas."""

    number: NumberType
    units: int
    unit_flop_per_s: float
    """Of one compute unit, at the fitted efficiency."""
    feed_bytes_per_s: float
    """Into one compute unit: what it reads of both operands for its tile."""
    tile_s: float
    """Start and end of one tile."""
    blend: float
    """0: the last wave takes as long as a full one. 1: its units share what is left."""
    memory_s_per_byte: float
    cache_s_per_byte: float
    cache_bytes: float
    power: float


START = {
    "efficiency": 0.8,
    "tile_s": 3e-7,
    "feed_bytes_per_s": 2e11,
    "blend": 0.3,
    "memory_efficiency": 0.8,
    "l2_over_memory": 1.5,
    "sharpness": 2.0,
}
"""Where the fit of the parameters that all tiled products share begins."""


def rates(chip: Chip, dtype: str, parameters: Parameters) -> Rates:
    """Return the rates of `chip` in `dtype`; efficiencies beyond 1 count as 1."""
    memory = chip.memory_bandwidth_bytes_per_s
    units = chip.compute_units
    peak = peak_flop_per_s(chip, dtype)
    return Rates(
        number=NUMBER_TYPES[dtype],
        units=units,
        unit_flop_per_s=peak / units * min(parameters["efficiency"], 1.0),
        feed_bytes_per_s=parameters["feed_bytes_per_s"],
        tile_s=parameters["tile_s"],
        blend=min(parameters["blend"], 1.0),
        memory_s_per_byte=1.0 / (min(parameters["memory_efficiency"], 1.0) * memory),
        cache_s_per_byte=1.0 / (parameters["l2_over_memory"] * memory),
        cache_bytes=chip.l2_bytes,
        power=1.0 + parameters["sharpness"],
    )


def tile_s_per_k(rate: Rates, tile: Tile) -> float:
    """Return the seconds of one step of k in one tile: multiply, and feed both operands.

    2 a b / (flop/s of a unit) + (a * activation bytes + b * weight bytes) / feed.
    """
    a, b = tile
    fed = a * rate.number.activation_bytes + b * rate.number.weight_bytes
    return 2.0 * a * b / rate.unit_flop_per_s + fed / rate.feed_bytes_per_s


def waves(rate: Rates, tiles_per_unit: Array) -> Array:
    """Return how many tiles follow each other on the busiest unit.

    (1 - blend) ceil(x) + blend max(1, x), x = tiles / compute units.
    """
    whole = np.ceil(tiles_per_unit)
    return whole - (whole - np.maximum(tiles_per_unit, 1.0)) * rate.blend


def traffic_s(rate: Rates, moved_bytes: Array) -> Array:
    """Return the seconds to move bytes, the part that fits the L2 cache at its own rate.

    b (h / memory + (1 - h) / L2), h = b / (b + cache size): rises with b throughout.
    """
    outside = moved_bytes / (moved_bytes + rate.cache_bytes)
    per_byte = outside * rate.memory_s_per_byte + (1.0 - outside) * rate.cache_s_per_byte
    return moved_bytes * per_byte


def overlapped_s(rate: Rates, a: Array, b: Array) -> Array:
    """Return the seconds of two things that overlap: (a^p + b^p)^(1/p), without overflow."""
    longer = np.maximum(a, b)
    ratio = np.minimum(a, b) / longer
    return longer * np.power(1.0 + np.power(ratio, rate.power), 1.0 / rate.power)
