"""Seconds of one dense matrix product [m, k] x [k, n] on one device.

Tiles of the output run in waves over the compute units, overlapping with memory:
t = launch + min over tiles and splits of k of [ (waves * (k/split * step + tile))^p + traffic^p ]
^(1/p) + (split > 1: split + 8 split m n / L2) + quantise * 3 m k / memory.
The tile and wave model is that of NVIDIA's guide "Matrix Multiplication Background" (2023,
sections 3 and 4); the constants are fitted. Valid for row counts of any alignment.
"""

from math import ceil, exp, log2

import numpy as np

from moesim.cost.curves import Array, Chip, Curve, Family, Parameters, Samples
from moesim.cost.details import Detail
from moesim.cost.families.number_types import NUMBER_TYPES, OUTPUT_BYTES, peak_flop_per_s
from moesim.cost.families.tiles import (
    BLOCK_SCALED,
    GENERAL,
    START,
    Rates,
    Tile,
    overlapped_s,
    rates,
    tile_s_per_k,
    traffic_s,
    waves,
)
from moesim.cost.families.wide_waves import scalar_wide_wave, wide_wave
from moesim.cost.surface import Axis, evaluate_one, evaluate_pair, octaves

_SPLITS = (1, 2, 4, 8)
_PARTIAL_SUM_BYTES = 8.0
"""An fp32 partial sum written and read again."""
_QUANTISE_BYTES = 3.0
"""A bf16 activation read, an fp8 one written."""
_BLOCK = 8192
"""Samples priced together, so that what lies between stays in the cache."""


def _menu(dtype: str) -> tuple[tuple[Tile, ...], tuple[int, ...]]:
    """Return the tiles and the splits of k that the kernels of `dtype` choose among."""
    return (BLOCK_SCALED, (1,)) if dtype == "fp8_block128" else (GENERAL, _SPLITS)


def tiled_gemm_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of each product by the formula above. Samples: m, n, k."""
    m, n, k = (np.asarray(samples[name], dtype=np.float64) for name in ("m", "n", "k"))
    rate = rates(chip, dtype, parameters)
    total = np.empty(m.shape)
    for first in range(0, len(m), _BLOCK):
        part = slice(first, first + _BLOCK)
        total[part] = _block_s(rate, dtype, parameters, m[part], n[part], k[part])
    return total


def _block_s(
    rate: Rates, dtype: str, parameters: Parameters, m: Array, n: Array, k: Array
) -> Array:
    number = rate.number
    moved = m * k * number.activation_bytes + n * k * number.weight_bytes + m * n * OUTPUT_BYTES
    traffic = traffic_s(rate, moved)
    tiles, splits = _menu(dtype)
    best = np.full(m.shape, np.inf)
    for split in splits:
        found = overlapped_s(rate, _compute_s(rate, tiles, split, (m, n, k)), traffic)
        if split > 1:
            sums = _PARTIAL_SUM_BYTES * split * rate.cache_s_per_byte
            found += m * n * sums + parameters["split_s"]
        best = np.minimum(best, found)
    best += parameters["launch_s"]
    if number.quantises:
        best += m * k * (parameters["quantise"] * _QUANTISE_BYTES * rate.memory_s_per_byte)
    return best


def _compute_s(
    rate: Rates, tiles: tuple[Tile, ...], split: int, shape: tuple[Array, Array, Array]
) -> Array:
    """Return the seconds of the best tile, memory left out."""
    m, n, k = shape
    down = {a: np.ceil(m / a) * split for a in sorted({a for a, _ in tiles})}
    across = {b: np.ceil(n / b) for b in sorted({b for _, b in tiles})}
    best = np.full(m.shape, np.inf)
    for tile in tiles:
        step = tile_s_per_k(rate, tile) / split
        count = waves(rate, down[tile[0]] * across[tile[1]] / rate.units)
        np.minimum(best, count * (k * step + rate.tile_s), out=best)
    return best


def bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return what no kernel can beat: 2 m n k / peak, and what must come from or go to memory.

    Memory moves the weights, and of the activations that are read and of those that are written
    what the L2 cache cannot hold: the kernels before and after may find those there.
    """
    m, n, k = samples["m"], samples["n"], samples["k"]
    number, cache = NUMBER_TYPES[dtype], chip.l2_bytes
    moved = n * k * number.weight_bytes
    moved = moved + np.maximum(m * k * number.activation_bytes - cache, 0.0)
    moved = moved + np.maximum(m * n * OUTPUT_BYTES - cache, 0.0)
    compute = 2.0 * m * n * k / peak_flop_per_s(chip, dtype)
    return np.maximum(compute, moved / chip.memory_bandwidth_bytes_per_s)


def start(chip: Chip, dtype: str) -> dict[str, float]:
    """Return where the fit begins: the datasheet, and what launches mostly cost."""
    begin = {"launch_s": 3e-6, **START}
    if len(_menu(dtype)[1]) > 1:
        begin["split_s"] = 2e-6
    if NUMBER_TYPES[dtype].quantises:
        begin["quantise"] = 1.0
    return begin


def padding(m: Array) -> Array:
    """Return the share of rows that fill the last block of 128 up; 0 for up to 64 rows.

    Kernels with scales per block store partly filled blocks by a slower path.
    """
    return np.where(m <= 64.0, 0.0, 1.0 - m / (128.0 * np.ceil(m / 128.0)))


def coordinates(samples: Samples) -> tuple[Array, ...]:
    """Return log2 of m, n and k, and the padding of m."""
    m = samples["m"]
    return np.log2(m), np.log2(samples["n"]), np.log2(samples["k"]), padding(m)


def samples_at(places: tuple[Array, ...]) -> Samples:
    """Return the shapes at coordinates, padding left out."""
    return {name: np.exp2(place) for name, place in zip("mnk", places[:3], strict=True)}


_ROWS = (
    0.0, 4.0, 5.0, 6.0, 6.585, 7.0, 7.585, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 17.0,
)  # fmt: skip
"""Of log2 m: closer around the ridge between memory and compute, where kernels change."""
_COLUMNS = (5.0, 7.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 16.0, 17.0)
"""Of log2 n: closer where the columns of most models lie."""

_QUANTUM = {"m": 0.5, "n": 0.42, "k": 0.12}
"""Of the measured neighbours in m and in n 0.1 % fall by more than 0.48, in k by more than 0.30:
rows that fill tiles up are up to twice as fast as some fewer that do not. Such steps are rare: 1 %
of the neighbours fall by more than 0.23, 0.13, 0.07. Products whose rows fill their tiles keep to
the quantum of n."""
_QUANTUM_IN = {"fp8_block128": {"m": 0.75, "n": 0.75, "k": 0.2}}
"""Where one wave of wide tiles (`wide_wave`) gives way: see there. k as measured, 0.30, at most."""

_FINE_ROWS = (
    0, 1, 2, 3, 4, 4.087, 5, 5.044, 5.585, 5.615, 6, 6.022, 6.322, 6.34, 6.585, 6.6, 6.807, 6.82,
    7, 7.011, 7.322, 7.331, 7.585, 7.592, 7.807, 7.814, 8, 8.006, 9, 9.003, 9.585, 9.586, 10,
    10.32, 10.585, 10.807, 11, 11.17, 11.32, 11.46, 11.585, 11.7, 11.81, 11.9, 12, 12.09, 13, 14,
    15,
)  # fmt: skip
"""Of log2 m: multiples of 16 and the row after them, where kernels change."""
_FINE_COLUMNS = (5, 7, 9, 9.5, 10, 10.5, 11, 11.5, 12, 12.5, 13, 13.5, 14, 15, 16, 17)
_FEW_ROWS = (0, 5, 7, 9, 11, 13)
_WAVES = tuple(
    round(log2(waves), 4)
    for waves in (
        0.02, 0.06, 0.12, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 1.001, 1.125, 1.25, 1.375, 1.5,
        1.625, 1.75, 1.875, 2, 2.001, 2.25, 2.5, 2.75, 3, 3.001, 3.25, 3.5, 3.75, 4, 4.001, 4.5, 5,
        5.001, 5.5, 6, 6.001, 7, 8, 16, 64,
    )
)  # fmt: skip
"""Of tiles per compute unit: full waves, just beyond them, and in between."""
_WAVES_OF: dict[str, Tile] = {
    f"log2_waves_{a}x{b}": (a, b) for a, b in ((128, 128), (128, 256), (64, 128))
}


def _axis(name: str, knots: tuple[float, ...]) -> Axis:
    return Axis(name, tuple(float(knot) for knot in knots))


_DETAILS = (
    Detail((_axis("log2_m", _FINE_ROWS), _axis("log2_n", _FINE_COLUMNS))),
    Detail((_axis("log2_n", _FINE_COLUMNS), _axis("log2_k", _FINE_COLUMNS))),
    *(Detail((_axis(name, _WAVES), _axis("log2_m", _FEW_ROWS))) for name in _WAVES_OF),
    Detail(
        (_axis("wide_wave", (0, 1, 2, 3)), _axis("log2_k", (10, 12, 14, 16))),
        dtypes=("fp8_block128",),
        held=False,
    ),
)


def place(samples: Samples, chip: Chip, name: str) -> Array:
    """Return where products lie on the axis of a detail.

    log2 of a size, or of the tiles of one shape per compute unit, or `wide_wave`.
    """
    m, n = samples["m"], samples["n"]
    if name in _WAVES_OF:
        a, b = _WAVES_OF[name]
        return np.log2(np.ceil(m / a) * np.ceil(n / b) / chip.compute_units)
    if name == "wide_wave":
        return wide_wave(m, n, chip.compute_units)
    return np.log2(samples[name.removeprefix("log2_")])


GEMM = Family(
    name="gemm",
    table="gemm",
    physics=tiled_gemm_s,
    start=start,
    coordinates=coordinates,
    axes=(
        Axis("log2_m", _ROWS),
        Axis("log2_n", _COLUMNS),
        octaves("log2_k", 5.0, 17.0, 2.0),
        Axis("padding", (0.0, 0.5)),
    ),
    smoothing=0.1,
    bound_s=bound_s,
    samples_at=samples_at,
    rising=((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)),
    around=4.0,
    details=_DETAILS,
    place=place,
    quantum=_QUANTUM,
    quantum_in=_QUANTUM_IN,
    quantum_beyond=0.1,
)


def scalar_s(m: float, n: float, k: float, chip: Chip, dtype: str, curve: Curve) -> float:
    """Return the seconds of one product: what `predict_s` gives, without numpy."""
    rate = rates(chip, dtype, curve.parameters)
    seconds = _scalar_physics_s(rate, dtype, curve.parameters, m, n, k)
    if curve.surface is not None:
        padded = 0.0 if m <= 64 else 1.0 - m / (128.0 * ceil(m / 128.0))
        relief = evaluate_one(curve.surface, (log2(m), log2(n), log2(k), padded))
        if curve.details:
            relief += _scalar_details(curve, m, n, k, chip.compute_units)
        seconds *= exp(relief)
    number, cache = rate.number, chip.l2_bytes
    read, written = m * k * number.activation_bytes - cache, m * n * OUTPUT_BYTES - cache
    moved = n * k * number.weight_bytes
    if read > 0.0:
        moved += read
    if written > 0.0:
        moved += written
    compute = 2.0 * m * n * k / peak_flop_per_s(chip, dtype)
    return max(seconds, compute, moved / chip.memory_bandwidth_bytes_per_s)


def _scalar_details(curve: Curve, m: float, n: float, k: float, units: int) -> float:
    at = {"log2_m": log2(m), "log2_n": log2(n), "log2_k": log2(k)}
    for name, (a, b) in _WAVES_OF.items():
        at[name] = log2(ceil(m / a) * ceil(n / b) / units)
    total = 0.0
    for table in curve.details:
        first, second = table.axes
        if first.name == "wide_wave":
            at["wide_wave"] = scalar_wide_wave(m, n, units)
        total += evaluate_pair(table, at[first.name], at[second.name])
    return total


def _scalar_physics_s(
    rate: Rates, dtype: str, parameters: Parameters, m: float, n: float, k: float
) -> float:
    number = rate.number
    moved = m * k * number.activation_bytes + n * k * number.weight_bytes + m * n * OUTPUT_BYTES
    outside = moved / (moved + rate.cache_bytes)
    traffic = moved * (outside * rate.memory_s_per_byte + (1.0 - outside) * rate.cache_s_per_byte)
    tiles, splits = _menu(dtype)
    fed_a, fed_b = number.activation_bytes, number.weight_bytes
    grid = [
        (
            ceil(m / a) * ceil(n / b),
            2.0 * a * b / rate.unit_flop_per_s + (a * fed_a + b * fed_b) / rate.feed_bytes_per_s,
        )
        for a, b in tiles
    ]
    best = float("inf")
    for split in splits:
        if split > 1 and traffic + parameters["split_s"] >= best:
            break
        compute = _scalar_compute_s(rate, grid, split, k)
        longer, shorter = max(compute, traffic), min(compute, traffic)
        found: float = longer * (1.0 + (shorter / longer) ** rate.power) ** (1.0 / rate.power)
        if split > 1:
            sums = _PARTIAL_SUM_BYTES * split * rate.cache_s_per_byte
            found += m * n * sums + parameters["split_s"]
        best = min(best, found)
    best += parameters["launch_s"]
    if number.quantises:
        best += m * k * (parameters["quantise"] * _QUANTISE_BYTES * rate.memory_s_per_byte)
    return best


def _scalar_compute_s(rate: Rates, grid: list[tuple[int, float]], split: int, k: float) -> float:
    best = float("inf")
    blend, tile_s, units = rate.blend, rate.tile_s, rate.units
    for tiles, step in grid:
        x = tiles * split / units
        whole = ceil(x)
        count = whole - (whole - (x if x > 1.0 else 1.0)) * blend
        seconds = count * (k * (step / split) + tile_s)
        if seconds < best:  # noqa: PLR1730 - min() takes twice as long
            best = seconds
    return best
