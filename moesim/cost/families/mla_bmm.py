"""The absorbed products around decode over latents: [tokens, 128] times [128, 512] for each head.

One batched product, or the way back from 512 to 128: as many FLOP and bytes. Repetitions of a
measurement find in the L2 cache what fits there, and times double where it stops to fit (H100, 64
heads: 14 us with 384 tokens, 40 MB, and 30 us with 768, 71 MB).
"""

import numpy as np

from moesim.cost.curves import Array, Chip, Family, Parameters, Samples
from moesim.cost.families.attention_work import element_bytes, peak_flop_per_s
from moesim.cost.families.ramps import together
from moesim.cost.surface import Axis

_NARROW, _WIDE = 128.0, 512.0
"""Widths of a head's queries or values, and of the latent (arXiv 2412.19437, section 4.2)."""


def _moved_bytes(samples: Samples, dtype: str) -> Array:
    heads, tokens = samples["local_num_heads"], samples["num_tokens"]
    weights = heads * (_NARROW * _WIDE)
    return weights * element_bytes(dtype) + 2.0 * tokens * heads * (_NARROW + _WIDE)


def bmm_bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return the seconds that no kernel can beat: weights, inputs and outputs; FLOP at peak.

    What fits into the L2 cache before or after does not count: a repeated measurement finds it
    there.
    """
    moved = np.maximum(_moved_bytes(samples, dtype) - 2.0 * chip.l2_bytes, 0.0)
    products = samples["num_tokens"] * samples["local_num_heads"] * (_NARROW * _WIDE)
    compute = 2.0 * products / peak_flop_per_s(chip, dtype)
    return np.maximum(compute, moved / chip.memory_bandwidth_bytes_per_s)


def bmm_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of one absorbed product.

    t = launch + (busy^p + memory^p)^(1/p), p = 1 + overlap
    busy = waves(heads ceil(tokens / rows) n / units) (2 rows 128 512 / n (1 + e) units / peak
         + t_tile), n tiles beside each other: 1 or 4 of the 512, or of fewer where K is long
    memory = bytes (1 + e) / bandwidth (out + (1 - out) o / (1 + o)),
    out = 1 / (1 + (share L2 / bytes)^8)

    A last wave counts whole with a blend of 0, and by its share with 1.
    """
    if "l2_share" not in parameters:
        return _earlier_bmm_s(samples, chip, dtype, parameters)
    moved = _moved_bytes(samples, dtype)
    out = 1.0 / (1.0 + (chip.l2_bytes * parameters["l2_share"] / moved) ** 8)
    inside = parameters["l2_odds"] / (1.0 + parameters["l2_odds"])
    memory = moved * ((1.0 + parameters["memory_excess"]) / chip.memory_bandwidth_bytes_per_s)
    memory = memory * (out + (1.0 - out) * inside)
    rows, beside = parameters["tile_rows"], parameters["tiles_per_row"]
    rounds = np.ceil(samples["num_tokens"] / rows) * (beside / chip.compute_units)
    rounds = rounds * samples["local_num_heads"]
    blend = min(parameters["blend"], 1.0)
    waves = np.ceil(rounds - 1e-9) * (1.0 - blend) + np.maximum(rounds, 1.0) * blend
    flop = 2.0 * rows * _NARROW * _WIDE / beside
    rate = peak_flop_per_s(chip, dtype) / chip.compute_units
    busy = waves * (flop * (1.0 + parameters["compute_excess"]) / rate + parameters["tile_s"])
    return parameters["launch_s"] + together(busy, memory, 1.0 + parameters["overlap"])


def _earlier_bmm_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds by the formula of profiles without `l2_share`.

    t = launch + ceil(heads ceil(tokens / 128) / units) t_tile + FLOP (1 + e) / peak
      + bytes / bandwidth (h (1 + e) + (1 - h) s), h = bytes / (bytes + L2), tokens padded to 64
    """
    heads, tokens = samples["local_num_heads"], samples["num_tokens"]
    moved = _moved_bytes(samples, dtype)
    outside = moved / (moved + chip.l2_bytes)
    slowness = outside * (1.0 + parameters["memory_excess"])
    slowness = slowness + (1.0 - outside) * parameters["l2_slowness"]
    padded = np.ceil(tokens / 64.0) * 64.0
    rate = peak_flop_per_s(chip, dtype) / (1.0 + parameters["compute_excess"])
    waves = np.ceil(heads * np.ceil(tokens / 128.0) / chip.compute_units)
    memory = moved / chip.memory_bandwidth_bytes_per_s * slowness
    compute = 2.0 * padded * heads * (_NARROW * _WIDE) / rate
    return parameters["launch_s"] + waves * parameters["tile_s"] + memory + compute


def bmm_start(chip: Chip, dtype: str) -> dict[str, float]:
    """Return where the fit begins: a batched product on Hopper, in round figures."""
    del chip, dtype
    return {
        "launch_s": 4e-6, "tile_s": 2e-7, "memory_excess": 0.3, "l2_odds": 0.5, "l2_share": 0.8,
        "compute_excess": 0.5, "overlap": 1.0, "blend": 0.3, "tile_rows": 128.0,
        "tiles_per_row": 4.0,
    }  # fmt: skip


_TRIES = tuple(
    {"tile_rows": rows, "tiles_per_row": beside} for rows in (64.0, 128.0) for beside in (1.0, 4.0)
)


def bmm_coordinates(samples: Samples) -> tuple[Array, ...]:
    """Return log2 of tokens and of heads."""
    return np.log2(samples["num_tokens"]), np.log2(samples["local_num_heads"])


def bmm_samples_at(places: tuple[Array, ...]) -> Samples:
    """Return products at places of the surface."""
    return {"num_tokens": np.exp2(places[0]), "local_num_heads": np.exp2(places[1])}


MLA_BMM = Family(
    name="mla_bmm", table="mla_bmm", physics=bmm_s, start=bmm_start, coordinates=bmm_coordinates,
    axes=(
        Axis("log2 num_tokens", (0.0, *(float(knot) for knot in range(4, 15)))),
        Axis("log2 local_num_heads", tuple(float(knot) for knot in range(8))),
    ),
    smoothing=0.1,
    tries=_TRIES,
    counts=("tile_rows", "tiles_per_row"),
    bound_s=bmm_bound_s,
    samples_at=bmm_samples_at,
    rising=((1, 0), (0, 1)),
    quantum={"num_tokens": 0.05, "local_num_heads": 0.1},
    quantum_beyond=0.02,
)  # fmt: skip
"""Of the measured neighbours 4 % in tokens and 2 % in heads fall by more than 5 %, and 1 % in heads
by more than 12 %."""
