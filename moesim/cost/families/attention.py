"""Attention as one fused kernel: prefill over causal tiles, decode over the key-value cache.

Parameters named `_excess` are what a kernel takes beyond peak or bandwidth: (1 + excess) times the
bound, so that no fit can beat it. The times of inference libraries include writing the new keys
and values to the cache.
"""

from dataclasses import dataclass

import numpy as np

from moesim.cost.curves import Array, Chip, Family, Parameters, Samples
from moesim.cost.families.attention_work import (
    TILE,
    Work,
    cache_bytes,
    element_bytes,
    makespan_blocks,
    prefill_work,
    query_bytes,
    tiles,
    work_bound_s,
    work_peak,
)
from moesim.cost.surface import Axis


def prefill_bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return the seconds that no kernel can beat: FLOP at peak, bytes at memory bandwidth."""
    return work_bound_s(prefill_work(samples, chip, dtype), chip, dtype)


def prefill_work_s(work: Work, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of attention with many queries per sequence.

    t = launch + tokens * (t_token + t_write * min(1, kv_heads v / 512)) / units
        + (compute^p + memory^p)^(1/p), p = 1 + overlap
    compute = makespan * T^2 (2 (qk + v) (1 + e) units / peak + t_softmax)
            + ceil(items / units) t_item
    memory = (query and output bytes (1 + e) + cache bytes (1 + e)) / bandwidth

    Tiles of T = 128 queries by 128 keys as in FlashAttention-2 (arXiv 2307.08691, section 3.1);
    t_token is the kernel that writes the cache, one small block per token, and t_write what one of
    512 threads takes longer: a unit runs the more blocks at once the smaller they are (vLLM,
    csrc/cache_kernels.cu, reshape_and_cache_flash: min(kv_heads * head_dim, 512) threads; from
    memory, unchecked, but the tables show the step at 512).
    """
    units = chip.compute_units
    product_s = (1.0 + parameters["compute_excess"]) * units / work.peak_flop_per_s
    block_s = 2.0 * (work.qk_dim + work.v_dim) * product_s + parameters["softmax_s"]
    block_s = TILE * TILE * block_s
    cut = tiles(work)
    own = parameters["unpacked_odds"] / (1.0 + parameters["unpacked_odds"])
    compute = np.zeros_like(cut.mean_blocks)
    for items, share in ((cut.packed_items, 1.0 - own), (cut.own_items, own)):
        busiest = makespan_blocks(items, cut, units, parameters) * block_s
        compute = compute + share * (busiest + np.ceil(items / units) * parameters["item_s"])
    moved = query_bytes(work, dtype) * (1.0 + parameters["query_excess"])
    moved = moved + cache_bytes(work) * (1.0 + parameters["cache_excess"])
    threads = np.minimum(work.kv_heads * work.v_dim / _WRITE_THREADS, 1.0)
    token_s = parameters["token_s"] + parameters.get("write_s", 0.0) * threads
    tokens = work.sequences * work.queries * (token_s / units)
    both = _norm(compute, moved / chip.memory_bandwidth_bytes_per_s, parameters["overlap"])
    return parameters["launch_s"] + tokens + both


_WRITE_THREADS = 512.0
"""Most threads of a block that writes one token to the cache."""


def _norm(a: Array, b: Array, overlap: float) -> Array:
    """Return (a^p + b^p)^(1/p) with p = 1 + overlap: the sum at 0, the greater at infinity."""
    power = min(1.0 + overlap, 20.0)
    high = np.maximum(a, b)
    low = np.maximum(np.minimum(a, b), 0.0)  # work of absurd sizes cancels to less than nothing
    return high * (1.0 + (low / high) ** power) ** (1.0 / power)


def prefill_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of each prefill: `prefill_work_s` of the work of the samples."""
    return prefill_work_s(prefill_work(samples, chip, dtype), chip, dtype, parameters)


def prefill_start(chip: Chip, dtype: str) -> dict[str, float]:
    """Return where the fit begins: FlashAttention-3 on Hopper, in round figures."""
    del chip, dtype
    return {
        "launch_s": 8e-6, "compute_excess": 0.3, "softmax_s": 2e-11, "item_s": 1e-6,
        "query_excess": 0.5, "cache_excess": 0.5, "token_s": 5e-8, "overlap": 0.3,
        "unpacked_odds": 1.0, "late_spread": 0.2, "undivided_odds": 9.0,
    }  # fmt: skip


def _prompt_start(chip: Chip, dtype: str) -> dict[str, float]:
    """Return where the fit begins for kernels whose times hold the writing of the cache."""
    return prefill_start(chip, dtype) | {"write_s": 5e-8}


def prefill_coordinates(samples: Samples) -> tuple[Array, ...]:
    """Return log2 of tokens, of batch times heads, of the head size, the window, the group."""
    tokens, heads = samples["seq_len"], samples["num_heads"]
    window = samples.get("sliding_window")
    hides = np.zeros_like(tokens)
    if window is not None:
        ratio = tokens / np.where(window > 0.0, window, np.inf)
        hides = np.clip(np.log2(2.0 * np.maximum(ratio, 0.5)), 0.0, 2.0)
    return (
        np.log2(tokens),
        np.log2(samples["batch_size"] * heads),
        np.log2(samples["head_dim"]),
        hides,
        np.log2(heads / samples["num_kv_heads"]),
    )


_USUAL_HEADS = 32.0
"""Heads of one sequence on one device, where the surface knows only sequences times heads."""


def prefill_samples_at(places: tuple[Array, ...]) -> Samples:
    """Return prompts at places of the surface, behind earlier tokens.

    Tables have no earlier tokens: a fit that lets no time fall behind `_EARLIER` of them, where new
    ones add least, lets it fall nowhere else.
    """
    tokens, both, head_dim, hides, group = places
    heads = np.maximum(np.minimum(np.exp2(both), _USUAL_HEADS), np.exp2(group))
    window = np.where(hides > 0.0, np.exp2(tokens + 1.0 - hides), 0.0)
    return {
        "batch_size": np.exp2(both) / heads, "seq_len": np.exp2(tokens), "num_heads": heads,
        "num_kv_heads": heads / np.exp2(group), "head_dim": np.exp2(head_dim),
        "sliding_window": window, "past_kv_tokens": np.full_like(tokens, _EARLIER),
    }  # fmt: skip


_EARLIER = 4096.0
"""Tokens: as many as the prompts of most tables reach."""

_HEAD_DIMS = (6.0, 7.0, 7.585, 8.0, 9.0)
"""log2 of 64, 128, 192, 256 and 512: libraries compile kernels for each, with tiles of its own."""
_SMOOTHING = 0.1
"""Less than for other families: kernels differ from knot to knot, and most knots have many rows."""
_SMOOTHING_PROMPTS = 0.03
"""Less still: tiles of queries come and go with every octave of a prompt."""

# Kernels change with the length of a prompt; earlier tokens make the work of tiles in a window more
# even. A window itself is no size: with it runs another kernel, often a slower one. Beyond what was
# measured times may fall most where few tokens follow many earlier ones, which have no axis.
PREFILL = Family(
    name="attention_prefill",
    table="attention_prefill",
    physics=prefill_s,
    start=_prompt_start,
    coordinates=prefill_coordinates,
    axes=(
        Axis("log2 seq_len", (0.0, *map(float, range(4, 15)))),
        Axis("log2 batch_size num_heads", (0.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 11.0)),
        Axis("log2 head_dim", _HEAD_DIMS),
        Axis("log2 2 seq_len / sliding_window", (0.0, 2.0)),
        Axis("log2 num_heads / num_kv_heads", (0.0, 1.5, 4.0)),
    ),
    smoothing=_SMOOTHING_PROMPTS,
    bound_s=prefill_bound_s,
    samples_at=prefill_samples_at,
    rising=((1, 0, 0, 0, 0), (0, 1, 0, 0, 0)),
    quantum={"seq_len": 0.35, "batch_size": 0.16, "heads": 0.16, "past_kv_tokens": 0.4},
    quantum_beyond=0.75,
)


def decode_work(samples: Samples, chip: Chip, dtype: str) -> Work:
    """Return what samples of one new token per sequence over `kv_tokens` ask for."""
    keys = samples["kv_tokens"]
    window = samples.get("sliding_window")
    if window is not None:
        keys = np.where(window > 0.0, np.minimum(keys, window), keys)
    qk_dim = samples["head_dim"]
    v_dim = samples.get("v_dim", qk_dim)
    size = samples.get("kv_element_bytes", element_bytes(dtype))
    return Work(
        sequences=samples["batch_size"], queries=np.ones_like(keys), keys=keys, pairs=keys,
        heads=samples["num_heads"], kv_heads=samples["num_kv_heads"], qk_dim=qk_dim, v_dim=v_dim,
        row_bytes=(qk_dim + v_dim) * size, peak_flop_per_s=work_peak(chip, dtype, size),
    )  # fmt: skip


def decode_bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return the seconds that no kernel can beat: mostly the cache at memory bandwidth."""
    return work_bound_s(decode_work(samples, chip, dtype), chip, dtype)


_ROWS = 64.0
"""Rows of a Hopper matrix instruction (PTX ISA, wgmma): a group of heads is padded to it."""


def decode_work_s(work: Work, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of attention with one query per sequence.

    t = launch + (busy^p + memory^p)^(1/p), p = 1 + overlap
    busy = waves * (t_item + keys / splits
           * max(2 rows (qk + v) (1 + e) units / peak, row bytes units u / bandwidth)),
    waves = ceil(sequences kv_heads splits / units)
    memory = (cache bytes (1 + e) + query and output bytes (1 + e)) / bandwidth

    The keys of a sequence are split over the units that would idle, see `_splits`. u is the share
    of bandwidth of a unit over what it can draw alone.
    """
    units = chip.compute_units
    bandwidth = chip.memory_bandwidth_bytes_per_s
    rows = np.ceil(work.heads / work.kv_heads / _ROWS) * _ROWS
    items = work.sequences * work.kv_heads
    splits = _splits(work, units / items, parameters)
    waves = np.ceil(items * splits / units - 1e-9)
    product_s = (1.0 + parameters["compute_excess"]) * units / work.peak_flop_per_s
    key_s = np.maximum(
        2.0 * rows * (work.qk_dim + work.v_dim) * product_s,
        work.row_bytes * (units / bandwidth * parameters["unit_slowness"]),
    )
    busy = waves * (work.keys / splits * key_s + parameters["item_s"])
    moved = query_bytes(work, dtype) * (1.0 + parameters["query_excess"])
    moved = moved + cache_bytes(work) * (1.0 + parameters["cache_excess"])
    return parameters["launch_s"] + _norm(busy, moved / bandwidth, parameters["overlap"])


def _splits(work: Work, units_per_item: Array, parameters: Parameters) -> Array:
    """Return into how many parts the keys of a sequence are cut.

    max(1, min(units per item, keys / `split_keys`)) (Flash-Decoding, Dao et al., 2023), to the
    power a where no query heads share keys: libraries run another kernel there, that may not cut
    at all (a = 0; FlashAttention-2, csrc/flash_attn/flash_api.cpp, mha_varlen_fwd: splits only
    where it could swap the group for queries) or as finely (a = 1; TensorRT-LLM's masked
    multi-head attention beside XQA); both from memory, unchecked.
    """
    finest = np.maximum(work.keys / parameters["split_keys"], 1.0)
    splits = np.minimum(np.maximum(units_per_item, 1.0), finest)
    odds = parameters.get("ungrouped_split_odds")
    if odds is None:
        return splits
    return np.where(work.heads > work.kv_heads, splits, splits ** (odds / (1.0 + odds)))


def decode_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of each decode step: `decode_work_s` of the work of the samples."""
    return decode_work_s(decode_work(samples, chip, dtype), chip, dtype, parameters)


def decode_start(chip: Chip, dtype: str) -> dict[str, float]:
    """Return where the fit begins: Flash-Decoding on Hopper, in round figures."""
    del chip, dtype
    return {
        "launch_s": 8e-6, "compute_excess": 1.0, "item_s": 1e-6, "unit_slowness": 0.7,
        "cache_excess": 0.1, "query_excess": 1.0, "overlap": 1.0, "split_keys": 256.0,
    }  # fmt: skip


def _step_start(chip: Chip, dtype: str) -> dict[str, float]:
    """Return where the fit begins for kernels of which some share keys among heads."""
    return decode_start(chip, dtype) | {"ungrouped_split_odds": 9.0}


def decode_coordinates(samples: Samples) -> tuple[Array, ...]:
    """Return log2 of the keys seen, of batch times key heads, of the head size and the group."""
    keys = samples["kv_tokens"]
    window = samples.get("sliding_window")
    if window is not None:
        keys = np.where(window > 0.0, np.minimum(keys, window), keys)
    kv_heads = samples["num_kv_heads"]
    return (
        np.log2(keys),
        np.log2(samples["batch_size"] * kv_heads),
        np.log2(samples["head_dim"]),
        np.log2(samples["num_heads"] / kv_heads),
    )


def decode_samples_at(places: tuple[Array, ...]) -> Samples:
    """Return decode steps at places of the surface."""
    keys, both, head_dim, group = places
    kv_heads = np.minimum(np.exp2(both), _USUAL_KV_HEADS)
    return {
        "batch_size": np.exp2(both) / kv_heads, "kv_tokens": np.exp2(keys),
        "num_kv_heads": kv_heads, "num_heads": kv_heads * np.exp2(group),
        "head_dim": np.exp2(head_dim),
    }  # fmt: skip


_USUAL_KV_HEADS = 8.0

DECODE = Family(
    name="attention_decode",
    table="attention_decode",
    physics=decode_s,
    start=_step_start,
    coordinates=decode_coordinates,
    axes=(
        Axis("log2 kv_tokens", (0.0, 5.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 14.0, 17.0)),
        Axis("log2 batch_size num_kv_heads", (0.0, 2.0, 4.0, 6.0, 7.0, 8.0, 10.0, 13.0)),
        Axis("log2 head_dim", _HEAD_DIMS),
        Axis("log2 num_heads / num_kv_heads", (0.0, 1.0, 3.0, 5.0)),
    ),
    smoothing=_SMOOTHING,
    bound_s=decode_bound_s,
    samples_at=decode_samples_at,
    rising=((1, 0, 0, 0), (0, 1, 0, 0)),
    quantum={"kv_tokens": 0.04, "batch_size": 0.08, "heads": 0.08, "sliding_window": 0.05},
    quantum_beyond=0.5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardRate:
    """How fast the backward pass of a fused attention kernel works, over the forward pass."""

    share: float
    """FLOP/s backward over FLOP/s forward."""
    kind: str
    source: str
    uncertainty: float = 0.22
    """Relative standard deviation of the share: half of what lies between the ends of what
    FlashAttention-3 states, 0.65 and 1.01, over their middle."""


FLASH_ATTENTION_2 = BackwardRate(
    share=0.63 / 0.73,
    kind="assumed",
    source="FlashAttention-2, arXiv 2307.08691, section 4.1: up to 73 % of peak forward and 63 % "
    "backward on A100; the paper was not at hand, and no table measures a backward pass",
)
FLASH_ATTENTION_3 = BackwardRate(
    share=0.63 / 0.73 * 1.625 / 1.75,
    kind="assumed",
    source="FlashAttention-3, arXiv 2407.08608, abstract and section 4.1: 1.5 to 2.0 times "
    "FlashAttention-2 forward and 1.5 to 1.75 times backward on H100; the middles of both",
)


def backward_s(
    forward_s: Array, launch_s: float, qk_dim: float, v_dim: float, rate: BackwardRate
) -> Array:
    """Return the seconds of the backward pass, given those of the forward pass.

    t = launch + (t_forward - launch) * (3 qk + 2 v) / (qk + v) / share: five products instead of
    two (FlashAttention-2, arXiv 2307.08691, section 3.1), at another rate.
    """
    products = (3.0 * qk_dim + 2.0 * v_dim) / (qk_dim + v_dim)
    return launch_s + np.maximum(forward_s - launch_s, 0.0) * (products / rate.share)
