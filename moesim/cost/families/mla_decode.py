"""Decode over the latent cache: tiles of query heads, keys split over units, waves, the L2 cache.

One latent serves all heads of a sequence, so a kernel stacks heads as rows of one product. Each
tile of rows reads the keys anew: 16 rows in Triton's grouped kernel (vLLM, triton_decode_attention,
BLOCK_H), 64 in FlashMLA and FlashAttention-3 (rows of wgmma, PTX ISA), and both, or 128 by a pair
of units, in TensorRT-LLM, which has a kernel for each and picks one by how many units it fills
(all from memory, unchecked; a fit keeps the menu that the times ask for).
"""

import numpy as np

from moesim.cost.curves import Array, Chip, Parameters
from moesim.cost.families.attention_work import Work, cache_bytes, query_bytes
from moesim.cost.families.ramps import together

START = {
    "launch_s": 8e-6, "compute_excess": 1.0, "item_s": 1e-6, "unit_slowness": 0.7,
    "cache_excess": 0.3, "query_excess": 1.0, "overlap": 1.0, "split_keys": 256.0,
    "tile_rows": 64.0, "wide_rows": 64.0, "blend": 0.2, "pair_excess": 0.1, "l2_share": 0.7,
    "l2_odds": 1.0, "partial_slowness": 0.3, "combine_s": 2e-6,
}  # fmt: skip
"""Where the fit begins: a kernel with splits on Hopper, in round figures."""

TRIES = tuple(
    {"tile_rows": rows, "wide_rows": wide, "split_keys": keys}
    for rows, wide in ((16.0, 16.0), (64.0, 64.0), (16.0, 64.0), (16.0, 128.0))
    for keys in (128.0, 1024.0, 65536.0)
)
"""Menus of tiles that kernels are known to have, with keys cut finely, coarsely and not at all."""
COUNTS = ("tile_rows", "wide_rows")


def tiled_decode_s(work: Work, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of attention with one query per sequence over shared keys.

    t = launch + combine_s (1 - 1/f) + (busy^p + memory^p)^(1/p), p = 1 + overlap

    f = max(keys / split_keys, 1) is the most parts that keys are cut into, busy that of the tile
    with the least of it; wide tiles are for more than a quarter as many heads: TensorRT-LLM takes
    32 heads in two tiles of 16, and 64 in one of 128. Parts leave results in fp32, written and
    read: 8 s heads v (1 - 1/f) bytes per sequence.
    """
    finest = np.maximum(work.keys / parameters["split_keys"], 1.0)
    rows, wide_rows = _rows(parameters, "tile_rows"), _rows(parameters, "wide_rows")
    busy, parts = _busy_s(work, chip, parameters, rows, finest)
    wide = 4.0 * work.heads > wide_rows
    if wide_rows != rows and np.any(wide):
        wide_busy, wide_parts = _busy_s(work, chip, parameters, wide_rows, finest)
        wide &= wide_busy < busy
        busy, parts = np.where(wide, wide_busy, busy), np.where(wide, wide_parts, parts)
    cut = 1.0 - 1.0 / finest
    partial = work.sequences * parts * work.heads * cut * (8.0 * work.v_dim)
    memory = _moved_bytes(work, chip, dtype, parameters) + partial * parameters["partial_slowness"]
    memory = memory * (1.0 / chip.memory_bandwidth_bytes_per_s)
    both = together(busy, memory, 1.0 + parameters["overlap"])
    return np.asarray(parameters["launch_s"] + parameters["combine_s"] * cut + both)


def _rows(parameters: Parameters, name: str) -> float:
    return max(float(round(parameters[name])), 1.0)


def _moved_bytes(work: Work, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the bytes of the cache, of queries and of outputs, as if all came from memory.

    cache (1 + e) (out + (1 - out) o / (1 + o)) + query and output bytes (1 + e),
    out = 1 / (1 + (share L2 / cache)^4)

    Repetitions of a measurement find what fits into the L2 cache there; what is read in turn and
    does not fit is found not at all, so that the change is steep.
    """
    cache = cache_bytes(work)
    fits = np.square(np.square(chip.l2_bytes * parameters["l2_share"] / cache))
    inside = parameters["l2_odds"] / (1.0 + parameters["l2_odds"])
    seen = (1.0 + inside * fits) / (1.0 + fits)
    moved = cache * seen * (1.0 + parameters["cache_excess"])
    return np.asarray(moved + query_bytes(work, dtype) * (1.0 + parameters["query_excess"]))


def _busy_s(
    work: Work, chip: Chip, parameters: Parameters, rows: float, finest: Array
) -> tuple[Array, Array]:
    """Return how long units are busy with tiles of `rows` heads, and the parts of each sequence.

    items = sequences ceil(heads / rows), each cut into s = max(units / items, 1) parts but no more
    than `finest`; a part takes keys / s * max(2 rows (qk + v) (1 + e) units / peak,
    row bytes units u / bandwidth) + t_item, in waves over the units.
    """
    units, bandwidth = chip.compute_units, chip.memory_bandwidth_bytes_per_s
    items = work.sequences * np.ceil(work.heads / rows)
    parts = np.minimum(np.maximum(units / items, 1.0), finest)
    product_s = (1.0 + parameters["compute_excess"]) * units / work.peak_flop_per_s
    key_s = np.maximum(
        2.0 * rows * (work.qk_dim + work.v_dim) * product_s,
        work.row_bytes * (units / bandwidth * parameters["unit_slowness"]),
    )
    return _waves_s(items * parts / units, work.keys / parts * key_s, parameters), parts


def _waves_s(rounds: Array, part_s: Array, parameters: Parameters) -> Array:
    """Return the seconds of `rounds` parts per unit, one after the other.

    Whole waves take (1 + pair) part + t_item each: the two units of a pair share their way to the
    L2 cache (TPC: NVIDIA A100 whitepaper). A last wave that leaves one unit of each pair idle takes
    part + t_item; with a blend of 1 it takes its share of a whole one.
    """
    whole = np.floor(rounds + 1e-9)
    rest = np.maximum(rounds - whole, 0.0)
    pair, item_s = parameters["pair_excess"], parameters["item_s"]
    full = part_s * (1.0 + pair) + item_s
    shared = np.minimum(np.maximum(20.0 * rest - 10.0, 0.0), 1.0)
    last = (part_s * (1.0 + pair * shared) + item_s) * (rest > 1e-9)
    blend = min(parameters["blend"], 1.0)
    spread = np.where(whole > 0.0, rest * full, last)
    return np.asarray(whole * full + (1.0 - blend) * last + blend * spread)
