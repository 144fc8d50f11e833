"""What an attention kernel has to do: pairs, tiles and bytes, from the columns of a sample.

A sample is `batch_size` equal sequences of `seq_len` new tokens behind `past_kv_tokens` earlier
ones. Columns beyond those of the tables are optional:

- `keys`: keys per sequence, instead of `past_kv_tokens + seq_len` (cross attention)
- `pairs`: (query, key) pairs per sequence and head that the mask lets through; without it
  attention is causal, with `sliding_window` where that is above 0
- `v_dim`: width of values, where it is not `head_dim`
- `kv_element_bytes`: size of an element of the key-value cache, where it is not that of the dtype
"""

from dataclasses import dataclass

import numpy as np

from moesim.cost.curves import Array, Chip, Parameters, Samples
from moesim.model.operators import AttentionCore

TILE = 128.0
"""Rows of queries, and of keys, that one compute unit works on at a time.

FlashAttention-3 (arXiv 2407.08608, section 3.1) works on 128 queries times 80 to 176 keys.
"""

_ELEMENT_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp4": 0.5, "nvfp4": 0.5}


def element_bytes(dtype: str) -> float:
    """Return the bytes of one element of `dtype`; variants such as fp8_block128 count as fp8."""
    return 1.0 if dtype.startswith("fp8") else _ELEMENT_BYTES.get(dtype, 2.0)


def peak_flop_per_s(chip: Chip, dtype: str) -> float:
    """Return the peak rate of `dtype`; where the chip states none, that of bf16."""
    name = "fp8" if dtype.startswith("fp8") else dtype
    return chip.peak_flop_per_s.get(name) or chip.peak_flop_per_s["bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Attention of equal sequences over keys; `pairs` is per sequence and head."""

    sequences: Array
    queries: Array
    keys: Array
    pairs: Array
    heads: Array
    kv_heads: Array
    qk_dim: Array | float
    v_dim: Array | float
    row_bytes: Array | float
    """Bytes of keys and values that the cache holds per token and key head."""
    peak_flop_per_s: Array | float


def work_peak(chip: Chip, dtype: str, cached: Array | float) -> Array | float:
    """Return the peak rate of products over a cache with elements of `cached` bytes.

    Libraries may multiply in fp8 what they cached in fp8, whatever the dtype of the model: no
    bound may say that they cannot.
    """
    own, narrow = peak_flop_per_s(chip, dtype), peak_flop_per_s(chip, "fp8")
    if isinstance(cached, float):
        return narrow if cached <= 1.0 else own
    return np.where(cached <= 1.0, narrow, own)


def causal_pairs(queries: Array, keys: Array, window: Array | float = 0.0) -> Array:
    """Return the pairs of the last `queries` of `keys` positions, each seeing at most `window`.

    pairs = q k - q (q - 1) / 2, less sum max(0, c - w) over the contexts c = k-q+1 .. k; a window
    of 0 is none.
    """
    everything = queries * keys - 0.5 * queries * (queries - 1.0)
    last = np.maximum(keys - window, 0.0)
    first = np.maximum(last - queries, 0.0)
    hidden = 0.5 * (last - first) * (last + first + 1.0)
    return np.where(np.asarray(window) > 0.0, everything - hidden, everything)


def prefill_work(samples: Samples, chip: Chip, dtype: str) -> Work:
    """Return what `samples` ask for."""
    queries = samples["seq_len"]
    keys = samples.get("keys")
    if keys is None:
        past = samples.get("past_kv_tokens")
        keys = queries if past is None else queries + past
    pairs = samples.get("pairs")
    if pairs is None:
        pairs = causal_pairs(queries, keys, samples.get("sliding_window", 0.0))
    qk_dim = samples["head_dim"]
    v_dim = samples.get("v_dim", qk_dim)
    size = samples.get("kv_element_bytes", element_bytes(dtype))
    return Work(
        sequences=samples["batch_size"], queries=queries, keys=keys, pairs=pairs,
        heads=samples["num_heads"], kv_heads=samples["num_kv_heads"], qk_dim=qk_dim, v_dim=v_dim,
        row_bytes=(qk_dim + v_dim) * size, peak_flop_per_s=work_peak(chip, dtype, size),
    )  # fmt: skip


def core_samples(core: AttentionCore, sequences: float) -> dict[str, Array]:
    """Return the columns of one forward attention operator over `sequences` equal sequences."""
    columns = {
        "batch_size": sequences, "seq_len": core.queries / sequences,
        "keys": core.keys / sequences, "pairs": core.pairs / sequences, "num_heads": core.heads,
        "num_kv_heads": core.kv_heads, "head_dim": core.qk_dim, "v_dim": core.v_dim,
        "past_kv_tokens": max(0.0, (core.keys - core.queries) / sequences), "sliding_window": 0.0,
    }  # fmt: skip
    return {name: np.array([float(value)]) for name, value in columns.items()}


def flop(work: Work) -> Array:
    """Return the FLOP of scores and weighted sum: 2 pairs heads (qk_dim + v_dim)."""
    return 2.0 * work.sequences * work.pairs * work.heads * (work.qk_dim + work.v_dim)


def query_bytes(work: Work, dtype: str) -> Array:
    """Return the bytes of queries read once and outputs written once (bf16 if not wider)."""
    size = element_bytes(dtype)
    wide = work.qk_dim * size + work.v_dim * max(size, 2.0)
    return work.sequences * work.queries * work.heads * wide


def cache_bytes(work: Work) -> Array:
    """Return the bytes of keys and values that some query sees, read once."""
    return work.sequences * _seen(work) * work.kv_heads * work.row_bytes


def _seen(work: Work) -> Array:
    """Return the keys of a sequence that some query sees: all but those before every window.

    Queries that follow each other see pairs / q keys on average, and together q - 1 more at most.
    """
    together = work.pairs / work.queries + np.maximum(work.queries - 1.0, 0.0)
    return np.minimum(np.minimum(work.keys, work.pairs), together)


def work_bound_s(work: Work, chip: Chip, dtype: str) -> Array:
    """Return the seconds that no kernel can beat: FLOP at peak, bytes at memory bandwidth.

    Keys of earlier iterations come from memory, since all layers have passed the L2 cache
    meanwhile. The new ones, the queries and the outputs may lie there: of those counts what it
    cannot hold, once before and once after.
    """
    compute = flop(work) / work.peak_flop_per_s
    earlier = np.maximum(_seen(work) - work.queries, 0.0)
    old = work.sequences * earlier * work.kv_heads * work.row_bytes
    new = query_bytes(work, dtype) + cache_bytes(work) - old
    moved = old + np.maximum(new - 2.0 * chip.l2_bytes, 0.0)
    return np.maximum(compute, moved / chip.memory_bandwidth_bytes_per_s)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Work cut into items of one tile of queries, and the blocks of keys that an item visits."""

    packed_items: Array
    """Where the query heads that share keys fill tiles together (FlashAttention-3, pack_gqa)."""
    own_items: Array
    """Where each query head has tiles of its own."""
    mean_blocks: Array
    longest_blocks: Array


def tiles(work: Work) -> Tiles:
    """Return the items and how many blocks of 128 keys each visits.

    The keys that a tile of queries visits are those of a query on average, widened by half a tile
    at a causal diagonal and by a whole one in a window: (pairs/q + (T-1)/2 (masked + windowed))/T,
    masked being 1 for a causal and 0 for a full mask, windowed the part of the causal pairs that
    the window hides.
    """
    q, k, pairs = work.queries, work.keys, work.pairs
    half = 0.5 * q * (q - 1.0)
    causal = np.maximum(q * k - half, pairs * 1e-3)
    masked = np.minimum(np.maximum(q * k - pairs, 0.0) / np.maximum(half, 0.5), 1.0)
    hidden = np.maximum(causal - pairs, 0.0)
    mean = pairs / q
    widened = 0.5 * np.maximum(np.minimum(q, TILE) - 1.0, 0.0) * (masked + hidden / causal)
    blocks = np.maximum((mean + widened) / TILE, 1.0)
    # the keys that the last query lacks: a triangle of pairs, where the first query lacks none
    lacks = 0.5 * (np.sqrt(8.0 * hidden + 1.0) - 1.0)
    window = np.where(lacks > q, mean, np.maximum(k - lacks, mean))
    longest = np.where(hidden > 0.0, np.minimum(k, window + TILE), k)
    own = np.ceil(q / TILE) * work.heads
    packed = np.ceil(q * work.heads / work.kv_heads / TILE) * work.kv_heads
    return Tiles(
        work.sequences * packed, work.sequences * own, blocks, np.maximum(longest / TILE, blocks)
    )


def makespan_blocks(items: Array, cut: Tiles, units: int, parameters: Parameters) -> Array:
    """Return the blocks that the busiest unit visits.

    max(undivided * longest, x mean + (ceil(x) - x) smallest + late * spread), x = items / units:
    longest-first is off the mean load by at most its last item (Graham, SIAM J. Appl. Math. 17,
    1969), which is the smallest, other orders by up to the spread between longest and smallest.
    Equal items give ceil(items / units). Undivided is below 1 where the keys of one tile are split.
    """
    undivided = parameters["undivided_odds"] / (1.0 + parameters["undivided_odds"])
    smallest = np.maximum(2.0 * cut.mean_blocks - cut.longest_blocks, 1.0)
    rounds = items / units
    share = rounds * cut.mean_blocks
    even = share + (np.ceil(rounds - 1e-9) - rounds) * smallest
    spread = np.minimum(
        parameters["late_spread"] * (cut.longest_blocks - smallest),
        np.maximum(share - smallest, 0.0),
    )
    busiest: Array = np.maximum(undivided * cut.longest_blocks, np.maximum(even, share) + spread)
    return busiest
