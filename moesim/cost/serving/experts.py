"""The experts of one layer, for many numbers of tokens: who is touched, and the slowest rank."""

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
    streamed = columns["active"] * weights * number.weight_bytes / bandwidth
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

    By its distribution where tokens are few, by the normal law where they are many; whole rows,
    rounded so that their sum is that of the mean.
    """
    places = (np.arange(count) + 0.5) / count
    mean, deviation = tokens * share, np.sqrt(tokens * share * (1 - share))
    if mean > 50:
        from statistics import NormalDist

        drawn = np.array([NormalDist().inv_cdf(place) for place in places])
        rows = np.maximum(0.0, np.round(mean + deviation * drawn))
    else:
        counts = np.arange(int(mean + 12 * deviation + 12))
        rows = np.searchsorted(np.cumsum(_binomial(tokens, share, counts)), places).astype(float)
    return np.asarray(rows[::-1], dtype=np.float64)


def _binomial(tokens: int, share: float, counts: Array) -> Array:
    """Return the probability of each count: C(n, k) p^k (1 - p)^(n - k), by logarithms."""
    from math import lgamma, log, log1p

    if share >= 1.0:
        return np.asarray(counts == tokens, dtype=np.float64)
    logs = [
        lgamma(tokens + 1) - lgamma(k + 1) - lgamma(tokens - k + 1)
        + k * log(share) + (tokens - k) * log1p(-share)
        if k <= tokens else -np.inf
        for k in (int(count) for count in counts)
    ]  # fmt: skip
    return np.exp(np.array(logs))
