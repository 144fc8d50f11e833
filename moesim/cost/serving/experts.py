"""The experts of one layer, for many numbers of tokens: who is touched, and the fullest rank."""

from functools import lru_cache
from statistics import NormalDist

import numpy as np

from moesim import rng
from moesim.cost.curves import Array, Samples
from moesim.cost.families import moe
from moesim.cost.families.moe_loads import LOAD_COLUMNS, summarise
from moesim.cost.families.number_types import NUMBER_TYPES, peak_flop_per_s
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.kernel_choice import FEW_TOKENS, experts, quickest
from moesim.model.architecture import MoeFfn
from moesim.moe.counts import inclusion
from moesim.moe.loads import LoadLaw, draw_shares

_DRAWS = 32
"""Draws of the law of shares that are averaged, share by share from the largest down."""

_SPREADS = 31
"""Ways to spread experts over ranks, of which the middle one counts."""

_MANY = 20.0
"""Rows from which a binomial law is near enough to a normal one."""


def experts_s(tokens: Array, ffn: MoeFfn, on: Deployment) -> Array:
    """Return the seconds of a layer's experts on the fullest rank; tokens are of the whole group.

    Top-k, permute, products, activation and finalize, by the curves of whole layers; without one
    FLOP and the weights of the experts that have rows, at the assumed efficiencies.
    """
    loads = [summarise(fullest_rows(int(count), ffn, on)) for count in tokens]
    columns = {name: np.array([load[name] for load in loads]) for name in LOAD_COLUMNS}
    width = np.full_like(tokens, max(1, ffn.expert_width // on.cut.expert_tp))
    samples = {
        "hidden_size": np.full_like(tokens, on.architecture.hidden), "expert_ffn_size": width,
        "tp_size": np.ones_like(tokens), "gated": np.full_like(tokens, float(ffn.gated)),
        "num_tokens": tokens, "num_experts": np.full_like(tokens, ffn.num_experts), **columns,
    }  # fmt: skip
    seconds = _measured_s(samples, ffn, on)
    if seconds is not None:
        return seconds
    weights = (2.0 + ffn.gated) * on.architecture.hidden * width
    rate = peak_flop_per_s(on.chip, on.formats.experts) * on.software.grouped_gemm_fraction
    bandwidth = on.chip.memory_bandwidth_bytes_per_s * on.software.memory_fraction
    streamed = columns["active"] * weights * NUMBER_TYPES[on.formats.experts].read_bytes
    compute = 2.0 * columns["routed"] * weights / rate
    return np.maximum(compute, streamed / bandwidth) + 4 * on.software.kernel_launch_s


def _measured_s(samples: Samples, ffn: MoeFfn, on: Deployment) -> Array | None:
    """Return the seconds by the curves of the engine's kernels; None without one."""
    few, many = experts(on.formats.experts, on, gated=ffn.gated)
    seconds = quickest(moe.MOE, many, samples, on)
    if seconds is None or few == many:
        return seconds
    low = quickest(moe.MOE, few, samples, on)
    assert low is not None
    return np.where(samples["num_tokens"] <= FEW_TOKENS, low, seconds)


def fullest_rows(tokens: int, ffn: MoeFfn, on: Deployment) -> Array:
    """Return the rows of each expert of the rank with most rows, for a typical batch of `tokens`.

    Each expert is chosen with the probability that the law of the load gives it; its rows are a
    quantile of their binomial law, the quantiles spread evenly over the experts. Of many ways to
    spread experts over ranks the one stands whose fullest rank is in the middle; with redundant
    experts the ranks are level and the rows of copies shared.
    """
    chosen, places = _typical(on.load, ffn.num_experts, ffn.top_k, on.cut.ep)
    rows = binomial_quantiles(tokens, chosen, places)
    ranks, slots = on.cut.ep, ffn.num_experts + on.cut.redundant_experts
    if on.cut.redundant_experts:
        return np.sort(rows)[::-1][:: max(1, ranks)] * (ffn.num_experts / slots)
    held = rows[: len(rows) // ranks * ranks].reshape(ranks, -1)
    fullest: Array = held[int(np.argmax(held.sum(axis=1)))]
    return fullest


@lru_cache(maxsize=64)
def _typical(law: LoadLaw, experts: int, top_k: int, ranks: int) -> tuple[Array, Array]:
    """Return each expert's probability to be chosen by a token, and its quantile, rank by rank."""
    draws = rng.stream(0, "typical shares of experts")
    ranked = [np.sort(draw_shares(law, experts, draws)) for _ in range(_DRAWS)]
    chosen = inclusion(np.asarray(np.mean(ranked, axis=0)), top_k)
    spread = [chosen[draws.permutation(experts)] for _ in range(_SPREADS)]
    held = experts // ranks * ranks
    fullest = [one[:held].reshape(ranks, -1).sum(axis=1).max() for one in spread]
    middle = int(np.argsort(fullest)[_SPREADS // 2])
    return spread[middle], (draws.permutation(experts) + 0.5) / experts


def binomial_quantiles(tokens: int, chosen: Array, places: Array) -> Array:
    """Return for each probability the least count whose distribution reaches its place.

    By the distribution itself where few are expected, pmf(k + 1) = pmf(k) (n - k) / (k + 1)
    p / (1 - p); by the normal law, to whole rows, where many are.
    """
    mean = tokens * chosen
    deviation = np.sqrt(np.maximum(mean * (1 - chosen), 0.0))
    normal = np.rint(mean + deviation * _normal_quantiles(tuple(places)))
    rows = np.clip(normal, 0.0, float(tokens))
    few = (mean <= _MANY) & (chosen < 1.0)
    if few.any():
        rows[few] = _counted(tokens, chosen[few], places[few])
    return np.asarray(rows, dtype=np.float64)


@lru_cache(maxsize=64)
def _normal_quantiles(places: tuple[float, ...]) -> Array:
    normal = NormalDist()
    return np.array([normal.inv_cdf(place) for place in places])


def _counted(tokens: int, chosen: Array, places: Array) -> Array:
    odds = chosen / (1 - chosen)
    pmf = (1 - chosen) ** tokens
    below, rows = pmf.copy(), np.zeros_like(chosen)
    for count in range(tokens):
        short = below < places
        if not short.any():
            break
        rows += short
        pmf = pmf * (tokens - count) / (count + 1) * odds
        below = below + pmf
    return rows
