"""How far off a curve is that a device of the same maker lent.

Measured with `moesim profile transfer TABLES --shapes 0` and `--from` for each of ten devices
(H100, H200, B200, GB200, A100, L40S, B300, GB300, H800, H20; the datasheet figures swapped, the
donor's residual surface kept, the same library on both). Its column `gained`, the median error
beyond that of the fit itself, sqrt(transferred^2 - fit^2) in percent; the middle of the kinds of
operator, over 1,142 operators and pairs of devices:

  octaves apart   0.15   0.52   1.45   1.96   2.52   3.66   5.6
  measured         3.0    3.4   23.5   16.0   17.0   24.7  25.0
  the rule below   3.4    6.0   14.8   19.8   25.2   25.2  25.2

It grows by about 10 % an octave and stops: two generations apart, kernels are other kernels. At 2.5
octaves, by kind: gemm 12 %, moe 14, prefill 16, grouped products 17, decode 17, exchanges 18,
elementwise 21, MLA 13 to 29, collectives 30. Within an octave the donor's surface is worth keeping
(median error of all 5.4 with it, 6.9 % without); beyond, it is no better and no worse.
"""

import math

from moesim.cost.curves import Chip

TRANSFER_ERROR = 0.03
"""Median relative error that a curve gains by leaving its device, however near the other one."""

TRANSFER_ERROR_PER_OCTAVE = 0.10
"""What it gains for each octave of peak FLOP/s and memory bandwidth between them."""

MOST_OCTAVES = 2.5
"""Distance from which on it gains no more."""

DEVIATION_PER_MEDIAN = 1.48
"""Standard deviation over median absolute error, of a normal distribution."""

_COMMON = ("bf16", "fp16")


def transferred_uncertainty(fit_error: float, octaves: float) -> float:
    """Return the relative standard deviation of a prediction by a lent curve.

    1.48 sqrt(fit^2 + 0.03^2 + (0.10 min(octaves, 2.5))^2): `fit_error` is the median absolute error
    of the curve on its own device, at least 1 %, and a median of e is a deviation of 1.48 e, as in
    `curves.uncertainty`. Valid for devices of one maker and kernels of one library; tables above.
    """
    distance = TRANSFER_ERROR_PER_OCTAVE * min(octaves, MOST_OCTAVES)
    return DEVIATION_PER_MEDIAN * math.hypot(max(fit_error, 0.01), TRANSFER_ERROR, distance)


def octaves_apart(ours: Chip, theirs: Chip) -> float | None:
    """Return how far two devices are apart, in octaves of peak FLOP/s and of memory bandwidth.

    |log2 peak ratio| + |log2 bandwidth ratio|; None for other makers and without a common peak.
    """
    first, second = ours.peak_flop_per_s, theirs.peak_flop_per_s
    common = next((name for name in _COMMON if name in first and name in second), None)
    if common is None or ours.vendor != theirs.vendor:
        return None
    memory = ours.memory_bandwidth_bytes_per_s / theirs.memory_bandwidth_bytes_per_s
    return abs(math.log2(first[common] / second[common])) + abs(math.log2(memory))
