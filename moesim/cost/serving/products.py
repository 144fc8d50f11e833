"""Matrix products and passes over activations, for many numbers of tokens at once."""

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.families import gemm
from moesim.cost.families.number_types import NUMBER_TYPES, OUTPUT_BYTES, peak_flop_per_s
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.kernel_choice import products, quickest


def gemm_s(tokens: Array, n: int, k: int, number: str, on: Deployment) -> Array:
    """Return the seconds of [tokens, k] x [k, n] for each number of tokens.

    By the curve of the format; without one a roofline with the assumed efficiency.
    """
    samples = {"m": tokens, "n": np.full_like(tokens, n), "k": np.full_like(tokens, k)}
    seconds = quickest(gemm.GEMM, products(gemm.GEMM, number, on), samples, on)
    if seconds is not None:
        return seconds
    kind = NUMBER_TYPES[number]
    rate = peak_flop_per_s(on.chip, number) * on.software.gemm_fraction
    moved = n * k * kind.weight_bytes + tokens * (k * kind.activation_bytes + n * OUTPUT_BYTES)
    moved_s = moved / (on.chip.memory_bandwidth_bytes_per_s * on.software.memory_fraction)
    return np.maximum(2.0 * tokens * n * k / rate, moved_s) + on.software.kernel_launch_s


def passes_s(tokens: Array, bytes_per_token: float, on: Deployment) -> Array:
    """Return a kernel that is bound by memory: bytes at the assumed share of the bandwidth."""
    rate = on.chip.memory_bandwidth_bytes_per_s * on.software.memory_fraction
    return tokens * (bytes_per_token / rate) + on.software.kernel_launch_s
