"""Attention of an iteration: decode over the cache, prefill of chunks, latent attention."""

import numpy as np

from moesim.cost.curves import Array, predict_s
from moesim.cost.families import attention as curves
from moesim.cost.families import mla
from moesim.cost.families.attention_work import causal_pairs
from moesim.cost.families.number_types import NUMBER_TYPES
from moesim.cost.fitted import Found
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.products import gemm_s
from moesim.model.architecture import GroupedQueryAttention, LatentAttention


def heads_of(attention: GroupedQueryAttention, on: Deployment) -> tuple[int, int]:
    """Return the query and the key/value heads of one rank."""
    tp = on.cut.tp
    return max(1, attention.heads // tp), max(1, attention.kv_heads // tp)


def cache_bytes_per_token(
    attention: GroupedQueryAttention | LatentAttention, on: Deployment
) -> float:
    """Return what one layer's cache of one rank grows by with a token."""
    size = NUMBER_TYPES[on.formats.cache].activation_bytes
    if isinstance(attention, LatentAttention):
        return size * (attention.kv_lora_rank + attention.qk_rope_head_dim)
    return size * heads_of(attention, on)[1] * 2 * attention.head_dim


def decode_s(
    attention: GroupedQueryAttention, sequences: int, tokens: Array, on: Deployment
) -> Array:
    """Return one step of `sequences` over `tokens` cached tokens each."""
    heads, kv_heads = heads_of(attention, on)
    found = _with_cache(on, "attention_decode")
    samples = {
        "batch_size": np.full_like(tokens, sequences), "kv_tokens": np.maximum(tokens, 1.0),
        "num_heads": np.full_like(tokens, heads), "num_kv_heads": np.full_like(tokens, kv_heads),
        "head_dim": np.full_like(tokens, attention.head_dim),
        "kv_element_bytes": np.full_like(tokens, _cache_bytes(on)),
    }  # fmt: skip
    if attention.window:
        samples["sliding_window"] = np.full_like(tokens, attention.window)
    if found is not None:
        return predict_s(curves.DECODE, found.curve, samples, on.chip)
    seen = np.minimum(tokens, attention.window or np.inf)
    moved = sequences * seen * cache_bytes_per_token(attention, on)
    rate = on.chip.memory_bandwidth_bytes_per_s * on.software.memory_fraction
    return moved / rate + on.software.kernel_launch_s


def prefill_s(
    attention: GroupedQueryAttention, tokens: Array, past: Array, on: Deployment
) -> Array:
    """Return the attention of one sequence's chunk of `tokens` after `past` tokens."""
    heads, kv_heads = heads_of(attention, on)
    found = _with_cache(on, "attention_prefill")
    samples = {
        "batch_size": np.ones_like(tokens), "seq_len": tokens, "past_kv_tokens": past,
        "num_heads": np.full_like(tokens, heads), "num_kv_heads": np.full_like(tokens, kv_heads),
        "head_dim": np.full_like(tokens, attention.head_dim),
        "kv_element_bytes": np.full_like(tokens, _cache_bytes(on)),
    }  # fmt: skip
    if attention.window:
        samples["sliding_window"] = np.full_like(tokens, attention.window)
    if found is not None:
        return predict_s(curves.PREFILL, found.curve, samples, on.chip)
    pairs = causal_pairs(tokens, tokens + past, float(attention.window or 0))
    rate = on.chip.peak_flop_per_s["bf16"] * on.software.attention_fraction
    return 4.0 * pairs * heads * attention.head_dim / rate + on.software.kernel_launch_s


def _cache_bytes(on: Deployment) -> float:
    return NUMBER_TYPES[on.formats.cache].activation_bytes


def _with_cache(on: Deployment, family: str) -> Found | None:
    """Return the curve of the cache's format, else that of any."""
    if on.formats.cache.startswith("fp8"):
        found = on.kernels.kind("bf16", family, "fp8 cache")
        if found is not None:
            return found
    return on.kernels.kind("bf16", family, "")


def latent_decode_s(
    attention: LatentAttention, sequences: int, tokens: Array, heads: int, *, on: Deployment
) -> Array:
    """Return one step of latent attention with its projections.

    By the measured module; without one, for this device or these widths, projections and the bytes
    of the cache at the assumed rate.
    """
    found = _module(on, "mla_decode_module") if _usual(attention) else None
    if found is None:
        size = _cache_bytes(on) * (attention.kv_lora_rank + attention.qk_rope_head_dim)
        rate = on.chip.memory_bandwidth_bytes_per_s * on.software.memory_fraction
        around = latent_projections_s(attention, np.array([float(sequences)]), heads, on)[0]
        return np.asarray(around + sequences * tokens * size / rate + on.software.kernel_launch_s)
    samples = {
        "batch_size": np.full_like(tokens, sequences), "kv_tokens": np.maximum(tokens, 1.0),
        **_latent(tokens, heads, on),
    }  # fmt: skip
    return predict_s(mla.MLA_DECODE_MODULE, found.curve, samples, on.chip)


def latent_prefill_s(
    attention: LatentAttention, tokens: Array, past: Array, heads: int, *, on: Deployment
) -> Array:
    """Return a chunk of a prompt through latent attention with its projections."""
    found = _module(on, "mla_prefill_module") if _usual(attention) else None
    if found is None:
        width = attention.qk_nope_head_dim + attention.qk_rope_head_dim + attention.v_head_dim
        pairs = causal_pairs(tokens, tokens + past, 0.0)
        rate = on.chip.peak_flop_per_s["bf16"] * on.software.attention_fraction
        around = latent_projections_s(attention, tokens, heads, on)
        return around + 2.0 * pairs * heads * width / rate + on.software.kernel_launch_s
    samples = {
        "batch_size": np.ones_like(tokens), "seq_len": tokens, "past_kv_tokens": past,
        **_latent(tokens, heads, on),
    }  # fmt: skip
    return predict_s(mla.MLA_PREFILL_MODULE, found.curve, samples, on.chip)


def latent_projections_s(
    attention: LatentAttention, tokens: Array, heads: int, on: Deployment
) -> Array:
    """Return the products around latent attention: down, up for queries and values, and out."""
    hidden, number = on.architecture.hidden, on.formats.attention
    nope, rope, value = (
        attention.qk_nope_head_dim, attention.qk_rope_head_dim, attention.v_head_dim
    )  # fmt: skip
    rank = attention.q_lora_rank or hidden
    down = (attention.q_lora_rank or 0) + attention.kv_lora_rank + rope
    shapes = [
        (down, hidden), (heads * (nope + rope), rank),
        (heads * (nope + value), attention.kv_lora_rank), (hidden, heads * value),
    ]  # fmt: skip
    return np.asarray(sum(gemm_s(tokens, n, k, number, on) for n, k in shapes), dtype=np.float64)


def _usual(attention: LatentAttention) -> bool:
    """Tell whether the widths are those of DeepSeek-V3, which the modules were measured with."""
    found = (
        attention.q_lora_rank, attention.kv_lora_rank, attention.qk_rope_head_dim,
        attention.qk_nope_head_dim, attention.v_head_dim,
    )  # fmt: skip
    return found == (mla.Q_LORA, mla.KV_LORA, mla.ROPE, mla.NOPE, mla.V)


def _latent(tokens: Array, heads: int, on: Deployment) -> dict[str, Array]:
    return {
        "local_num_heads": np.full_like(tokens, heads),
        "kv_element_bytes": np.full_like(tokens, _cache_bytes(on)),
        "projection_element_bytes": np.full_like(
            tokens, NUMBER_TYPES[on.formats.attention].weight_bytes
        ),
    }


def _module(on: Deployment, family: str) -> Found | None:
    """Return the module with these projections over this cache, else with the next wider."""
    number = on.formats.attention
    wanted = [number, *(["fp8_block128"] if number.startswith("fp8") else []), "bf16"]
    caches = ["fp8 cache, ", ""] if on.formats.cache.startswith("fp8") else ["", "fp8 cache, "]
    for projections in wanted:
        for cache in caches:
            ending = f"{cache}{projections} projections"
            for dtype in ("bf16", number):
                found = on.kernels.kind(dtype, family, ending)
                if found is not None:
                    return found
    return None
