"""Plain physics for any device with torch: what `moesim calibrate` fits a few shapes to.

t = launch + (compute^p + memory^p)^(1/p), compute = FLOP / (peak * fraction) and memory = bytes /
(bandwidth * fraction). Three to six parameters, so a dozen shapes fit them; the residual surface
takes what caches and vector units add. Richer families (gemm, moe, attention, ...) can stand in
for each operator on its own.

Products and attention cannot beat the peak, which is the best that was observed on any of them.
What memory and links bound has no such limit: their rates are those of a copy and of a transfer,
and a kernel that only reads, or finds its bytes in a cache, may be faster.
"""

from collections.abc import Callable

import numpy as np

from moesim.cost.curves import Array, Chip, Family, Parameters, Samples
from moesim.cost.surface import octaves

DTYPE_BYTES = {"fp32": 4.0, "tf32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0}
"""Bytes of one element."""

_OVERLAP = 3.0
"""Exponent p of compute beside memory: the fit of measured products on H100 gives 3.0."""


def _joined(compute_s: Array, memory_s: Array) -> Array:
    """Return the p-norm of two times that mostly hide behind each other."""
    longer, shorter = np.maximum(compute_s, memory_s), np.minimum(compute_s, memory_s)
    ratio = shorter / np.maximum(longer, 1e-30)
    return np.asarray(longer * (1.0 + ratio**_OVERLAP) ** (1.0 / _OVERLAP))


def _compute_s(flop: Array, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    return flop / (chip.peak_flop_per_s[dtype] * parameters["compute_fraction"])


def _memory_s(moved: Array, chip: Chip, parameters: Parameters) -> Array:
    return moved / (chip.memory_bandwidth_bytes_per_s * parameters["memory_fraction"])


def gemm_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of [m, k] times [k, n].

    FLOP = 2 (m + rows_lost) (n + columns_lost) k: each product loses some rows and columns to
    packing and to the edges of its blocks.
    """
    m, n, k = samples["m"], samples["n"], samples["k"]
    wide = (m + parameters["rows_lost"]) * (n + parameters["columns_lost"])
    moved = (m * k + k * n + m * n) * DTYPE_BYTES[dtype]
    work = _compute_s(2.0 * wide * k, chip, dtype, parameters)
    return parameters["launch_s"] + _joined(work, _memory_s(moved, chip, parameters))


def grouped_gemm_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of one [rows of the expert, k] times [k, n] for each active expert.

    As `gemm_s`, with the rows lost once per expert and a launch (or a loop's turn) of its own.
    """
    experts, rows, n, k = (samples[name] for name in ("experts", "rows", "n", "k"))
    flop = 2.0 * (rows + experts * parameters["rows_lost"]) * n * k
    moved = (rows * k + experts * k * n + rows * n) * DTYPE_BYTES[dtype]
    work = _joined(_compute_s(flop, chip, dtype, parameters), _memory_s(moved, chip, parameters))
    return parameters["launch_s"] + experts * parameters["expert_s"] + work


def attention_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of fused attention, prefill and decode alike.

    FLOP = pairs * heads * (4 head_dim + softmax_flop): two products, and the exponential between
    them; bytes = queries and output, keys and values of all sequences. A causal mask saves half
    of the pairs but for a block of keys: pairs = queries * (keys - (keys - block) / 2).
    """
    sequences, queries, keys = (samples[name] for name in ("sequences", "queries", "keys"))
    heads, kv_heads, width = (samples[name] for name in ("heads", "kv_heads", "head_dim"))
    saved = samples["causal"] * np.maximum(keys - parameters["block"], 0.0) / 2
    pairs = sequences * queries * (keys - saved) * heads
    flop = pairs * (4.0 * width + parameters["softmax_flop"])
    moved = 2.0 * sequences * (queries * heads + keys * kv_heads) * width * DTYPE_BYTES[dtype]
    work = _joined(_compute_s(flop, chip, dtype, parameters), _memory_s(moved, chip, parameters))
    return parameters["launch_s"] + work


def elementwise_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of anything bound by memory: launch + items * item + bytes / rate.

    Items are rows for norms, choices for gates, tensors for an optimizer, kernels for launches.
    """
    del dtype
    memory = _memory_s(samples["bytes"], chip, parameters)
    return parameters["launch_s"] + samples["items"] * parameters["item_s"] + memory


def collective_s(samples: Samples, chip: Chip, dtype: str, parameters: Parameters) -> Array:
    """Return the seconds of a collective: launch + (steps * step)^p + (wire bytes / rate)^p.

    p < 1 where bandwidth ramps slowly; the wire bytes are those of the fullest rank.
    """
    del dtype
    steps = (samples["ranks"] - 1.0) * parameters["step_s"]
    wire = samples["bytes"] / (chip.link_bytes_per_s * parameters["link_fraction"])
    power = parameters["power"]
    return parameters["launch_s"] + (steps**power + wire**power) ** (1.0 / power)


def _compute_bound_s(flop: Callable[[Samples], Array]) -> Callable[[Samples, Chip, str], Array]:
    def bound(samples: Samples, chip: Chip, dtype: str) -> Array:
        return flop(samples) / chip.peak_flop_per_s[dtype]

    return bound


def _gemm_flop(samples: Samples) -> Array:
    return 2.0 * samples["m"] * samples["n"] * samples["k"]


def _grouped_flop(samples: Samples) -> Array:
    return 2.0 * samples["rows"] * samples["n"] * samples["k"]


def _attention_flop(samples: Samples) -> Array:
    seen = samples["keys"] * (1.0 - samples["causal"] / 2)
    pairs = samples["sequences"] * samples["queries"] * seen * samples["heads"]
    return 4.0 * pairs * samples["head_dim"]


def _launch_s(chip: Chip) -> float:
    return 5e-6 if chip.vendor in ("nvidia", "amd") else 2e-6


def _gemm_start(chip: Chip, dtype: str) -> dict[str, float]:
    del dtype
    return {
        "launch_s": _launch_s(chip), "compute_fraction": 0.9, "memory_fraction": 0.8,
        "rows_lost": 1.0, "columns_lost": 4.0,
    }  # fmt: skip


def _grouped_start(chip: Chip, dtype: str) -> dict[str, float]:
    del dtype
    return {
        "launch_s": _launch_s(chip), "expert_s": 1e-6, "compute_fraction": 0.8,
        "memory_fraction": 0.8, "rows_lost": 2.0,
    }  # fmt: skip


def _attention_start(chip: Chip, dtype: str) -> dict[str, float]:
    del dtype
    return {
        "launch_s": 2 * _launch_s(chip),
        "compute_fraction": 0.5,
        "memory_fraction": 0.7,
        "softmax_flop": 40.0,
        "block": 128.0,
    }


def _elementwise_start(chip: Chip, dtype: str) -> dict[str, float]:
    del dtype
    return {"launch_s": _launch_s(chip), "item_s": 5e-9, "memory_fraction": 0.5}


def _launch_start(chip: Chip, dtype: str) -> dict[str, float]:
    del dtype
    return {"launch_s": _launch_s(chip), "item_s": _launch_s(chip), "memory_fraction": 1.0}


def _collective_start(chip: Chip, dtype: str) -> dict[str, float]:
    del dtype
    return {"launch_s": 4 * _launch_s(chip), "step_s": 1e-5, "link_fraction": 0.9, "power": 0.8}


def _gemm_place(samples: Samples) -> tuple[Array, ...]:
    return np.log2(samples["m"]), np.log2(samples["n"] * samples["k"])


def _grouped_place(samples: Samples) -> tuple[Array, ...]:
    each = np.log2(np.maximum(samples["rows"] / samples["experts"], 1.0))
    return each, np.log2(samples["n"] * samples["k"])


def _attention_place(samples: Samples) -> tuple[Array, ...]:
    return np.log2(samples["keys"]), np.log2(samples["sequences"] * samples["heads"])


def _bytes_place(samples: Samples) -> tuple[Array, ...]:
    return (np.log2(np.maximum(samples["bytes"], 1.0)),)


GEMM = Family(
    name="simple_gemm", table="gemm", physics=gemm_s, start=_gemm_start,
    coordinates=_gemm_place, axes=(octaves("m", 0, 14, 2), octaves("n*k", 8, 28, 4)),
    bound_s=_compute_bound_s(_gemm_flop),
)  # fmt: skip

GROUPED_GEMM = Family(
    name="simple_grouped_gemm", table="moe_grouped_gemm", physics=grouped_gemm_s,
    start=_grouped_start, coordinates=_grouped_place,
    axes=(octaves("rows/expert", 0, 14, 2), octaves("n*k", 8, 28, 4)),
    bound_s=_compute_bound_s(_grouped_flop),
)  # fmt: skip

ATTENTION = Family(
    name="simple_attention", table="attention", physics=attention_s, start=_attention_start,
    coordinates=_attention_place,
    axes=(octaves("keys", 4, 16, 2), octaves("sequences*heads", 0, 12, 4)),
    bound_s=_compute_bound_s(_attention_flop),
)  # fmt: skip

ELEMENTWISE = Family(
    name="simple_elementwise", table="elementwise", physics=elementwise_s,
    start=_elementwise_start, coordinates=_bytes_place, axes=(octaves("bytes", 6, 32, 2),),
)  # fmt: skip

LAUNCH = Family(
    name="simple_launch",
    table="launch",
    physics=elementwise_s,
    start=_launch_start,
    coordinates=lambda samples: (np.log2(samples["items"]),),
    axes=(octaves("items", 0, 16, 2),),
)

COLLECTIVE = Family(
    name="simple_collective", table="collectives", physics=collective_s, start=_collective_start,
    coordinates=_bytes_place, axes=(octaves("bytes", 6, 32, 2),),
)  # fmt: skip

FAMILIES = (GEMM, GROUPED_GEMM, ATTENTION, ELEMENTWISE, LAUNCH, COLLECTIVE)
"""All plain families."""
