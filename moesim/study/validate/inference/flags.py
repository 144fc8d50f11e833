"""Engine settings from the free text of a case's flags; what is not known is listed as assumed."""

import re
from typing import Any

_COUNTS = (
    (r"max_num_seqs ?=? ?(\d+|concurrency)", "max_sequences"),
    (r"max_batch(?:_size)? ?=? ?(\d+)", "max_sequences"),
    (r"\bbatch (\d+)", "max_sequences"),
    (r"max_num_batched_tokens ?=? ?(\d+\*isl|\d+)", "token_budget"),
    (r"max_num_tokens ?=? ?(\d+)", "token_budget"),
    (r"chunked prefill (\d+)", "token_budget"),
)
_FRACTIONS = (
    (r"(?:gpu_mem_util|gpu_memory_utilization|mem_fraction(?:_static)?) ?=? ?(0?\.\d+)"),
    (r"free_gpu_memory_fraction ?=? ?(0?\.\d+)"),
)
_KNOWN = re.compile(
    r"kv (fp8|auto)|radix cache off|block reuse off|prefix cach|trtllm-bench|max_model_len"
    r"|async scheduling|fused allreduce|mxfp4|trtllm_mla|flashinfer|trtllm moe|defaults"
    r"|chunked prefill and prefix|flashinfer attention|as h200|as nvidia|1k/1k|1200 server"
)


def read_flags(
    text: str, concurrency: int | None, isl: float | None
) -> tuple[dict[str, Any], list[str]]:
    """Return settings of the engine and what was not understood of `text`."""
    lower = text.casefold()
    engine: dict[str, Any] = {}
    for pattern, key in _COUNTS:
        found = re.search(pattern, lower)
        value = _value(found[1], concurrency, isl) if found else None
        if value is not None and key not in engine:
            engine[key] = value
    for pattern in _FRACTIONS:
        if (share := re.search(pattern, lower)) and 0 < float(share[1]) <= 1:
            engine["memory_fraction"] = float(share[1])
    unknown = [part.strip() for part in lower.split(", ") if part.strip() and not _is_known(part)]
    return engine, [f"engine flag '{part[:60]}' is not modelled" for part in unknown]


def _value(word: str, concurrency: int | None, isl: float | None) -> int | None:
    if word == "concurrency":
        return concurrency
    if word.endswith("*isl"):
        return int(int(word[:-4]) * isl) if isl else None
    return min(int(word), 10**6) or None


def _is_known(part: str) -> bool:
    patterns = (*(pattern for pattern, _ in _COUNTS), *_FRACTIONS)
    return bool(_KNOWN.search(part)) or any(re.search(pattern, part) for pattern in patterns)
