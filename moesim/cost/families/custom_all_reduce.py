"""Seconds of the all-reduce kernels of inference engines: one shot, two shots, then the library.

Columns of the samples: `bytes` (the buffer of one rank), `ranks`, inside one scale-up domain. With
B bytes, n ranks and link rate r:

  one = floor + (n-1) step + (n-1) B / (one_shot_fraction r)           every rank reads all others
  two = floor + (n-1) step + second_shot + 2 (n-1)/n B / (fraction r)  each reduces a share
  library = (library + (n-1) library_step) (+) min(2 (n-1)/n B / (library_fraction r),
                                                   (1 + 1/n) B / (in_switch_fraction r))
  t = one, two where n > 2 and n B > two_shot_bytes, library where B (n/2)^library_power >
  library_bytes; launched eagerly, never shorter than the host takes (host, + library_host there)

(+) is the p-norm of `sharpness`. Switches are constants of the engines: two shots from 512 KiB with
4 ranks and 256 KiB with 8 (vLLM, and SGLang on A100 and Hopper), or where two shots get faster
(SGLang 0.5.14 on Blackwell as measured: from 4 MiB with 4 ranks, 1 MiB with 8); the library beyond
8 MiB (vLLM), 16 MiB (SGLang), or sooner with more ranks (TensorRT-LLM: 2 MiB with 4, 1 MiB with 8).
So a fit begins at each and hardly moves it: the tables have a size per octave.

The sizes are read off the tables, those of vLLM from memory besides; none was looked up in sources.

Algorithms: vLLM csrc/custom_all_reduce.cuh, TensorRT-LLM customAllReduceKernels.cu. Validity: 256 B
to 1 GiB, 2 to 8 ranks. Behind PCIe (L40S) the ranks share a link, which the formulas do not know.
"""

import numpy as np

from moesim.cost.curves import Array, Chip, Family, Parameters, Samples
from moesim.cost.families.ramps import beyond, fraction, link_rate, together
from moesim.cost.surface import Axis, octaves

_HOST_SHARPNESS = 8.0
"""The launch by the host and the kernel run side by side: nearly the slower of both."""
_SHOTS_STEEPNESS = 16.0
"""A step at a size that the tables measured, just before or at it."""
_LIBRARY_STEEPNESS = 8.0
"""A step somewhere within an octave."""
_FORMER_STEEPNESS = 4.0
_MOST_POWER = 2.0


def custom_all_reduce_s(samples: Samples, chip: Chip, dtype: str, fitted: Parameters) -> Array:
    """Return the seconds of the engine's kernel, or of the library's beyond its limit."""
    if "library_fraction" not in fitted:
        return _former_s(samples, chip, fitted)
    size, ranks = samples["bytes"], samples["ranks"]
    power = min(fitted["library_power"], _MOST_POWER)
    reach = size * (ranks / 2.0) ** power
    library = beyond(reach, fitted["library_bytes"], _LIBRARY_STEEPNESS)
    own = _own_s(samples, chip, fitted)
    total = own ** (1.0 - library) * _library_s(samples, chip, fitted) ** library
    host = fitted["host_s"] + library * fitted["library_host_s"]
    return together(total, host, _HOST_SHARPNESS)


def _own_s(samples: Samples, chip: Chip, fitted: Parameters) -> Array:
    size, ranks = samples["bytes"], samples["ranks"]
    rate, others = link_rate(samples, chip), ranks - 1.0
    start = fitted["floor_s"] + fitted["step_s"] * others
    one = start + others * size / (fraction(fitted, "one_shot_fraction") * rate)
    wire = 2.0 * others / ranks * size
    two = start + fitted["second_shot_s"] + wire / (fraction(fitted, "fraction") * rate)
    if fitted["two_shot_bytes"] < _TUNED:
        return np.minimum(one, two)
    later = beyond(size * ranks, fitted["two_shot_bytes"], _SHOTS_STEEPNESS)
    later = np.where(ranks > 2.0, later, 0.0)
    return np.asarray(one ** (1.0 - later) * two**later)


def _library_s(samples: Samples, chip: Chip, fitted: Parameters) -> Array:
    ranks = samples["ranks"]
    ring = 2.0 * (ranks - 1.0) / ranks / fraction(fitted, "library_fraction")
    in_switch = (1.0 + 1.0 / ranks) / fraction(fitted, "in_switch_fraction")
    wire = np.minimum(ring, in_switch) * samples["bytes"] / link_rate(samples, chip)
    start = fitted["library_s"] + fitted["library_step_s"] * (ranks - 1.0)
    return together(start, wire, fitted["sharpness"])


def _former_s(samples: Samples, chip: Chip, fitted: Parameters) -> Array:
    """Return the seconds of profiles fitted before the library had a rate of its own."""
    size, ranks = samples["bytes"], samples["ranks"]
    rate, others, sharp = link_rate(samples, chip), ranks - 1.0, fitted["sharpness"]
    start = fitted["floor_s"] + fitted["step_s"] * others
    library = beyond(size, fitted["library_bytes"], _FORMER_STEEPNESS)
    start = start + fitted["library_s"] * library
    one = others * size / (fraction(fitted, "one_shot_fraction") * rate)
    two = 2.0 * others / ranks * size / (fraction(fitted, "fraction") * rate)
    later = start + fitted["second_shot_s"]
    kernel = np.minimum(together(start, one, sharp), together(later, two, sharp))
    return together(kernel, np.full_like(kernel, fitted["host_s"]), _HOST_SHARPNESS)


def _start(chip: Chip, dtype: str) -> dict[str, float]:
    return {
        "floor_s": 3e-6,
        "step_s": 1.5e-7,
        "one_shot_fraction": 0.7,
        "second_shot_s": 3e-6,
        "fraction": 0.75,
        "two_shot_bytes": 1.5e6,
        "library_s": 1.5e-5,
        "library_step_s": 3e-6,
        "library_fraction": 0.75,
        "in_switch_fraction": 0.65,
        "sharpness": 1.0,
        "library_bytes": 1.2e7,
        "library_power": 0.05,
        "host_s": 1e-8,
        "library_host_s": 1e-8,
    }


_TUNED = 1e4
"""Bytes below which the switch to two shots stands for one at the crossing: the faster counts."""
_LIMITS = ((1.2e7, 0.05), (2.4e7, 0.05), (6e6, 1.5), (1.5e6, 0.05))
"""Bytes and power of the ranks: half an octave beyond the last size that each engine sends itself,
8 MiB, 16 MiB, 4 MiB shared by more ranks, and 1 MiB (vLLM on Blackwell)."""
_BEGINNINGS = tuple(
    {"two_shot_bytes": shots, "library_bytes": size, "library_power": power, "host_s": host}
    for shots in (1.5e6, 1.0)
    for size, power in _LIMITS
    for host in (1e-8, 2.5e-5)
)

RANKS = Axis("log2_ranks", (1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
"""The axis of ranks inside a domain."""


def _size_and_ranks(samples: Samples) -> tuple[Array, ...]:
    return np.log2(samples["bytes"]), np.log2(samples["ranks"])


CUSTOM_ALL_REDUCE = Family(
    name="custom_all_reduce",
    table="collectives",
    physics=custom_all_reduce_s,
    start=_start,
    coordinates=_size_and_ranks,
    axes=(octaves("log2_bytes", 8.0, 34.0, 1.0), RANKS),
    smoothing=0.1,
    quantum={"ranks": 0.6},
    tries=_BEGINNINGS,
    switch_pull=1.0,
    pull=0.1,
)
"""One-shot and two-shot kernels; the variant is the column `algorithm` of the table. For more ranks
the engines use other kernels, which may be faster."""
