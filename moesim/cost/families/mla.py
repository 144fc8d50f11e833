"""Multi-head latent attention: prefill, decode over the latent cache, absorbed products.

The dimensions are those of DeepSeek-V3 (arXiv 2412.19437, section 4.2), as in the tables:
`local_num_heads` heads of 128 + 64 for queries and keys and 128 for values, a latent of 512, of
which with the rotary part 576 numbers per token are cached. `_kernel` families are the attention
kernel alone; `_module` families hold the projections around it, whose element size is the column
`projection_element_bytes` (2 without it).
"""

import numpy as np

from moesim.cost.curves import Array, Chip, Family, Parameters, Samples
from moesim.cost.families.attention import (
    decode_start,
    decode_work_s,
    prefill_start,
    prefill_work_s,
)
from moesim.cost.families.attention_work import (
    Work,
    causal_pairs,
    element_bytes,
    work_bound_s,
    work_peak,
)
from moesim.cost.families.mla_decode import COUNTS, START, TRIES, tiled_decode_s
from moesim.cost.surface import Axis, Smoothing

HIDDEN, Q_LORA, KV_LORA, ROPE, NOPE, V = 7168.0, 1536.0, 512.0, 64.0, 128.0, 128.0


def prefill_work(samples: Samples, chip: Chip, dtype: str) -> Work:
    """Return the work of causal attention with the keys and values of all heads expanded."""
    queries, heads = samples["seq_len"], samples["local_num_heads"]
    past = samples.get("past_kv_tokens")
    keys = queries if past is None else queries + past
    size = samples.get("kv_element_bytes", element_bytes(dtype))
    return Work(
        sequences=samples["batch_size"], queries=queries, keys=keys,
        pairs=causal_pairs(queries, keys), heads=heads, kv_heads=heads, qk_dim=NOPE + ROPE,
        v_dim=V, row_bytes=(NOPE + ROPE + V) * element_bytes(dtype),
        peak_flop_per_s=work_peak(chip, dtype, size),
    )  # fmt: skip


def decode_work(samples: Samples, chip: Chip, dtype: str) -> Work:
    """Return the work of one query per sequence over the latent cache, which all heads share.

    Keys are the 576 numbers cached per token, values the first 512 of them: they are read once.
    """
    keys = samples["kv_tokens"]
    one = np.ones_like(keys)
    size = samples.get("kv_element_bytes", element_bytes(dtype))
    return Work(
        sequences=samples["batch_size"], queries=one, keys=keys, pairs=keys,
        heads=samples["local_num_heads"], kv_heads=one, qk_dim=KV_LORA + ROPE, v_dim=KV_LORA,
        row_bytes=(KV_LORA + ROPE) * size, peak_flop_per_s=work_peak(chip, dtype, size),
    )  # fmt: skip


def absorbed_prefill_work(samples: Samples, chip: Chip, dtype: str) -> Work:
    """Return the work of causal attention over the latents themselves, which all heads share.

    What kernels named after MLA do with short prompts: as in decode, with several queries.
    """
    queries = samples["seq_len"]
    past = samples.get("past_kv_tokens")
    keys = queries if past is None else queries + past
    size = samples.get("kv_element_bytes", element_bytes(dtype))
    return Work(
        sequences=samples["batch_size"], queries=queries, keys=keys,
        pairs=causal_pairs(queries, keys), heads=samples["local_num_heads"],
        kv_heads=np.ones_like(queries), qk_dim=KV_LORA + ROPE, v_dim=KV_LORA,
        row_bytes=(KV_LORA + ROPE) * size, peak_flop_per_s=work_peak(chip, dtype, size),
    )  # fmt: skip


def prefill_bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return the seconds of the kernel that none can beat: FLOP at peak, bytes at bandwidth."""
    return work_bound_s(prefill_work(samples, chip, dtype), chip, dtype)


def decode_bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return the seconds of the kernel that none can beat: FLOP at peak, bytes at bandwidth."""
    return work_bound_s(decode_work(samples, chip, dtype), chip, dtype)


def prefill_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of the prefill kernel."""
    return prefill_work_s(prefill_work(samples, chip, dtype), chip, dtype, parameters)


def decode_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of the decode kernel."""
    work = decode_work(samples, chip, dtype)
    if "tile_rows" not in parameters:  # modules, whose projections hide the tiles; older profiles
        return decode_work_s(work, chip, dtype, parameters)
    return tiled_decode_s(work, chip, dtype, parameters)


def absorbed_prefill_bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return the seconds of the absorbed kernel that none can beat."""
    return work_bound_s(absorbed_prefill_work(samples, chip, dtype), chip, dtype)


def absorbed_prefill_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of the prefill kernel that works on the latents."""
    return prefill_work_s(absorbed_prefill_work(samples, chip, dtype), chip, dtype, parameters)


def projection_weights(heads: Array) -> Array:
    """Return the weights of all projections of a layer with `heads` local heads.

    Down to the latents 7168 (1536 + 576), up to queries 1536 * 192 per head, up to keys and values
    (or their absorbed form, as many) 512 * 256 per head, output 128 * 7168 per head.
    """
    per_head = Q_LORA * (NOPE + ROPE) + KV_LORA * (NOPE + V) + V * HIDDEN
    return HIDDEN * (Q_LORA + KV_LORA + ROPE) + heads * per_head


def _projection_parts(samples: Samples, tokens: Array, chip: Chip) -> tuple[Array, Array]:
    """Return the seconds of the projections at peak, and at bandwidth."""
    size = samples.get("projection_element_bytes", 2.0)
    weights = projection_weights(samples["local_num_heads"])
    compute = tokens * weights * size / chip.peak_flop_per_s["bf16"]
    moved = weights * size + 2.0 * tokens * 2.0 * HIDDEN
    return compute, moved / chip.memory_bandwidth_bytes_per_s


def projections_s(samples: Samples, tokens: Array, chip: Chip, parameters: Parameters) -> Array:
    """Return the seconds of the projections of `tokens` tokens.

    t = tokens weights size (1 + e) / peak(bf16)
      + (weights size + hidden states) (1 + e) / bandwidth

    2 FLOP per weight and token at a rate inverse to the element size: peak(bf16) * 2 / size.
    """
    compute, memory = _projection_parts(samples, tokens, chip)
    slow = compute * (1.0 + parameters["projection_excess"])
    return slow + memory * (1.0 + parameters["weight_excess"])


def _projections_bound_s(samples: Samples, tokens: Array, chip: Chip) -> Array:
    """Return the seconds of the products at peak, and of the weights at bandwidth.

    Without the scales that narrow weights carry, which are no work of the matrix unit, and without
    hidden states, which may lie in the cache.
    """
    size = samples.get("projection_element_bytes", 2.0)
    weights = projection_weights(samples["local_num_heads"])
    compute = tokens * weights * np.where(np.asarray(size) < 1.0, 0.5, size)
    return np.maximum(
        compute / chip.peak_flop_per_s["bf16"], weights * size / chip.memory_bandwidth_bytes_per_s
    )


def prefill_module_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of prefill with its projections: one after the other."""
    tokens = samples["batch_size"] * samples["seq_len"]
    around = projections_s(samples, tokens, chip, parameters)
    return prefill_s(samples, chip, dtype, parameters) + around


def absorbed_prefill_module_s(
    samples: Samples, chip: Chip, dtype: str, parameters: Parameters
) -> Array:
    """Return the seconds of prefill over the latents with its projections."""
    tokens = samples["batch_size"] * samples["seq_len"]
    around = projections_s(samples, tokens, chip, parameters)
    return absorbed_prefill_s(samples, chip, dtype, parameters) + around


def decode_module_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of a decode step with its projections: one after the other."""
    around = projections_s(samples, samples["batch_size"], chip, parameters)
    return decode_s(samples, chip, dtype, parameters) + around


def prefill_module_bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return the seconds that no kernels can beat: attention's bound and the projections'."""
    tokens = samples["batch_size"] * samples["seq_len"]
    return prefill_bound_s(samples, chip, dtype) + _projections_bound_s(samples, tokens, chip)


def absorbed_prefill_module_bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return the seconds that no kernels can beat: attention over latents and the projections."""
    tokens = samples["batch_size"] * samples["seq_len"]
    around = _projections_bound_s(samples, tokens, chip)
    return absorbed_prefill_bound_s(samples, chip, dtype) + around


def decode_module_bound_s(samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return the seconds that no kernels can beat: attention's bound and the projections'."""
    around = _projections_bound_s(samples, samples["batch_size"], chip)
    return decode_bound_s(samples, chip, dtype) + around


_AROUND = {"launch_s": 3e-5, "projection_excess": 0.5, "weight_excess": 0.5}


def prefill_module_start(chip: Chip, dtype: str) -> dict[str, float]:
    """Return where the fit begins: that of the kernel, with projections near the roofline."""
    return prefill_start(chip, dtype) | _AROUND


def tiled_decode_start(chip: Chip, dtype: str) -> dict[str, float]:
    """Return where the fit of the kernel begins: with splits on Hopper, in round figures."""
    del chip, dtype
    return dict(START)


def decode_module_start(chip: Chip, dtype: str) -> dict[str, float]:
    """Return where the fit begins: that of the kernel, with projections near the roofline."""
    return decode_start(chip, dtype) | _AROUND


def prefill_coordinates(samples: Samples) -> tuple[Array, ...]:
    """Return log2 of tokens per sequence, of sequences and of heads."""
    return (
        np.log2(samples["seq_len"]),
        np.log2(samples["batch_size"]),
        np.log2(samples["local_num_heads"]),
    )


def decode_coordinates(samples: Samples) -> tuple[Array, ...]:
    """Return log2 of keys per sequence, of sequences and of heads."""
    return (
        np.log2(samples["kv_tokens"]),
        np.log2(samples["batch_size"]),
        np.log2(samples["local_num_heads"]),
    )


def prefill_samples_at(places: tuple[Array, ...]) -> Samples:
    """Return prompts at places of the surface, without earlier tokens."""
    names = ("seq_len", "batch_size", "local_num_heads")
    return {name: np.exp2(place) for name, place in zip(names, places, strict=True)}


def decode_samples_at(places: tuple[Array, ...]) -> Samples:
    """Return decode steps at places of the surface."""
    names = ("kv_tokens", "batch_size", "local_num_heads")
    return {name: np.exp2(place) for name, place in zip(names, places, strict=True)}


_RISING = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_LET_BE_DECODE = (0.015, 0.015, 0.4)
_LET_BE_MODULE = (0.015, 0.015, 0.25)
_MODULE_SMOOTHING = 0.1
_FINE_SMOOTHING = Smoothing(bend=(0.03, 0.03, 0.03), slope=(0.01, 0.01, 0.01))
_LET_BE = 0.015
_PREFILL_QUANTUM = {"seq_len": 0.35, "batch_size": 0.35, "local_num_heads": 0.3}
_MODULE_QUANTUM = {"kv_tokens": 0.12, "batch_size": 0.25, "local_num_heads": 0.25}
_DECODE_QUANTUM = {"kv_tokens": 0.15, "batch_size": 0.25, "local_num_heads": 0.55}
"""Kernels for few sequences or heads cut their keys otherwise than those for many: of the measured
neighbours 2 to 10 % fall by more than 5 %. Heads are measured at powers of two only, and on
Blackwell the step from 32 to 64 (two tiles of 16 rows, then one of 128) falls by up to 37 %: 3 % of
all neighbours in heads fall by more than 12 %. Between 17 and 34 heads a curve has that whole step
and the slope of its residual. Along the keys 0.9 % of neighbours fall by more than 12 %."""

_PREFILL_AXES = (
    Axis("log2 seq_len", (0.0, 5.0, 7.0, 9.0, 10.0, 11.0, 12.0, 13.0, 15.0)),
    Axis("log2 batch_size", (0.0, 2.0, 4.0, 6.0, 8.0)),
    Axis("log2 local_num_heads", (0.0, 2.0, 4.0, 5.0, 6.0, 7.0)),
)
_DECODE_AXES = (
    Axis("log2 kv_tokens", (0.0, 6.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 15.0, 17.0)),
    Axis("log2 batch_size", (0.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)),
    Axis("log2 local_num_heads", (0.0, 3.0, 5.0, 6.0, 7.0)),
)

_FINE_PREFILL_AXES = (
    Axis("log2 seq_len", (0.0, *(float(knot) for knot in range(4, 14)), 15.0)),
    Axis("log2 batch_size", tuple(float(knot) for knot in range(9))),
    _PREFILL_AXES[2],
)

MLA_PREFILL_KERNEL = Family(
    name="mla_prefill_kernel", table="mla_prefill", physics=prefill_s, start=prefill_start,
    coordinates=prefill_coordinates, axes=_FINE_PREFILL_AXES, bound_s=prefill_bound_s,
    smoothing=_FINE_SMOOTHING,
    samples_at=prefill_samples_at, rising=_RISING, let_be=_LET_BE,
    quantum=_PREFILL_QUANTUM, quantum_beyond=0.5,
)  # fmt: skip
MLA_PREFILL_MODULE = Family(
    name="mla_prefill_module", table="mla_prefill", physics=prefill_module_s,
    start=prefill_module_start, coordinates=prefill_coordinates, axes=_PREFILL_AXES,
    bound_s=prefill_module_bound_s, smoothing=_MODULE_SMOOTHING,
    samples_at=prefill_samples_at, rising=_RISING, let_be=_LET_BE,
    quantum=_PREFILL_QUANTUM, quantum_beyond=0.5,
)  # fmt: skip
MLA_ABSORBED_PREFILL_KERNEL = Family(
    name="mla_absorbed_prefill_kernel", table="mla_prefill", physics=absorbed_prefill_s,
    start=prefill_start, coordinates=prefill_coordinates, axes=_FINE_PREFILL_AXES,
    bound_s=absorbed_prefill_bound_s, smoothing=_FINE_SMOOTHING,
    samples_at=prefill_samples_at, rising=_RISING, let_be=_LET_BE,
    quantum=_PREFILL_QUANTUM, quantum_beyond=0.5,
)  # fmt: skip
MLA_ABSORBED_PREFILL_MODULE = Family(
    name="mla_absorbed_prefill_module", table="mla_prefill", physics=absorbed_prefill_module_s,
    start=prefill_module_start, coordinates=prefill_coordinates, axes=_PREFILL_AXES,
    bound_s=absorbed_prefill_module_bound_s, smoothing=_MODULE_SMOOTHING,
    samples_at=prefill_samples_at, rising=_RISING, let_be=_LET_BE,
    quantum=_PREFILL_QUANTUM, quantum_beyond=0.5,
)  # fmt: skip
_FINE_DECODE_AXES = (
    Axis("log2 kv_tokens", (0.0, 4.0, *(float(knot) for knot in range(6, 18)))),
    Axis("log2 batch_size", tuple(float(knot) for knot in range(11))),
    Axis("log2 local_num_heads", (0.0, 1.0, 4.0, 5.0, 6.0, 7.0)),
)

MLA_DECODE_KERNEL = Family(
    name="mla_decode_kernel", table="mla_decode", physics=decode_s, start=tiled_decode_start,
    tries=TRIES, counts=COUNTS, smoothing=_FINE_SMOOTHING,
    coordinates=decode_coordinates, axes=_FINE_DECODE_AXES, bound_s=decode_bound_s,
    samples_at=decode_samples_at, rising=_RISING, let_be=_LET_BE_DECODE,
    quantum=_DECODE_QUANTUM, quantum_beyond=0.25,
)  # fmt: skip
MLA_DECODE_MODULE = Family(
    name="mla_decode_module", table="mla_decode", physics=decode_module_s,
    start=decode_module_start, coordinates=decode_coordinates, axes=_DECODE_AXES,
    bound_s=decode_module_bound_s, smoothing=_FINE_SMOOTHING,
    samples_at=decode_samples_at, rising=_RISING, let_be=_LET_BE_MODULE,
    quantum=_MODULE_QUANTUM, quantum_beyond=0.25,
)  # fmt: skip
