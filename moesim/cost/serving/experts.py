"""The experts of one layer, for many numbers of tokens: who is touched, and the slowest rank."""

import math
from statistics import NormalDist

import numpy as np

from moesim.cost.curves import Array, predict_s
from moesim.cost.families import moe
from moesim.cost.families.moe_loads import LOAD_COLUMNS, summarise
from moesim.cost.families.number_types import NUMBER_TYPES, peak_flop_per_s
from moesim.cost.serving.deployment import Deployment
from moesim.model.architecture import MoeFfn


def experts_s(tokens: Array, ffn: MoeFfn, on: Deployment) -> Array:
    """Return the seconds of a layer's experts on the fullest rank; tokens are of the whole group.

    Top-k, permute, products, activation and finalize, by the curve of whole layers.
    """
    loads = [summarise(fullest_rows(int(count), ffn, on)) for count in tokens]
    columns = {name: np.array([load[name] for load in loads]) for name in LOAD_COLUMNS}
    found = on.kernels.first(on.formats.experts, ("moe", ""))
    samples = {
        "hidden_size": np.full_like(tokens, on.architecture.hidden),
        "expert_ffn_size": np.full_like(tokens, max(1, ffn.expert_width // on.cut.expert_tp)),
        "tp_size": np.ones_like(tokens), "gated": np.full_like(tokens, float(ffn.gated)),
        "num_tokens": tokens, "num_experts": np.full_like(tokens, ffn.num_experts), **columns,
    }  # fmt: skip
    if found is not None:
        return predict_s(moe.MOE, found.curve, samples, on.chip)
    number = NUMBER_TYPES[on.formats.experts]
    width = samples["expert_ffn_size"]
    weights = (2.0 + ffn.gated) * on.architecture.hidden * width
    rate = peak_flop_per_s(on.chip, on.formats.experts) * on.software.grouped_gemm_fraction
    bandwidth = on.chip.memory_bandwidth_bytes_per_s * on.software.memory_fraction
    compute = 2.0 * columns["routed"] * weights / rate
    streamed = columns["active"] * weights * number.read_bytes / bandwidth
    return np.maximum(compute, streamed) + 4 * on.software.kernel_launch_s


def fullest_rows(tokens: int, ffn: MoeFfn, on: Deployment) -> Array:
    """Return the rows of each expert of the fullest rank, for a typical batch of `tokens`.

    Popularities by the law of the load, in the middle of each expert's share of it; of the rows,
    binomial for each expert, those at evenly spaced quantiles.
    """
    local = max(1, ffn.num_experts // on.cut.ep)
    share = ffn.top_k / ffn.num_experts
    return np.asarray(binomial_quantiles(tokens, share, local))


def binomial_quantiles(tokens: int, share: float, count: int) -> Array:
    """Return `count` draws of a binomial law at evenly spaced quantiles, most first.

    By its distribution where few are expected, by the normal law where many are.
    """
    places = (np.arange(count) + 0.5) / count
    mean, deviation = tokens * share, math.sqrt(tokens * share * (1 - share))
    if mean > _MANY:
        normal = NormalDist()
        drawn = np.array([normal.inv_cdf(place) for place in places])
        rows = np.maximum(0.0, np.round(mean + deviation * drawn))
    else:
        most = min(tokens, int(mean + 12 * deviation + 12))
        below = np.cumsum([_binomial(tokens, share, k) for k in range(most + 1)])
        rows = np.searchsorted(below, places).astype(np.float64)
    return np.asarray(rows[::-1], dtype=np.float64)


_MANY = 50
"""Rows from which the normal law is near enough: its quantiles are off by less than half a row."""


def _binomial(tokens: int, share: float, count: int) -> float:
    """Return C(n, k) p^k (1 - p)^(n - k), by logarithms."""
    if share >= 1.0:
        return float(count == tokens)
    ways = math.lgamma(tokens + 1) - math.lgamma(count + 1) - math.lgamma(tokens - count + 1)
    return math.exp(ways + count * math.log(share) + (tokens - count) * math.log1p(-share))
