"""From TensorRT-LLM's arguments and its YAML of LLM API options to a serving scenario.

Rules: tensorrt_llm/mapping.py and llmapi/llm_args.py (from memory, unchecked). Attention data
parallelism makes every tensor parallel rank one with its own requests; limits hold for each.
"""

import re

from moesim.spec.engines.facts import (
    ModelFacts,
    check_cut,
    fraction,
    positive,
    put_formats,
    put_given,
    read_cache,
    say_else,
    switched,
)
from moesim.spec.engines.features import (
    put_caching,
    put_hidden_host,
    put_longest,
    read_trtllm_graphs,
)
from moesim.spec.engines.fleet import read_trtllm_fleet
from moesim.spec.engines.guesses import read_trtllm_guesses
from moesim.spec.megatron.reading import Reading

_TP, _PP, _EP, _MOE_TP = "tp-size", "pp-size", "ep-size", "moe-tensor-parallel-size"
_CACHE = "kv-cache-config.dtype"
_POLICY = "scheduler-config.capacity-scheduler-policy"


def read_trtllm(reading: Reading, facts: ModelFacts) -> int:
    """Read all of it; return the devices that one deployment takes."""
    tp, pp, ep = (positive(reading, name) for name in (_TP, _PP, _EP))
    apart = bool(switched(reading, "enable-attention-dp")) and tp > 1
    shown = 1 if apart else tp
    check_cut(reading, facts, (_TP, shown), (_PP, pp))
    reading.put("serving.parallel.tp", shown, _TP, "enable-attention-dp")
    if apart:
        reading.put("serving.parallel.dp", tp, _TP, "enable-attention-dp")
    reading.put("serving.parallel.pp", pp, _PP)
    _read_experts(reading, facts, tp, ep)
    _read_limits(reading)
    put_longest(reading, "max-seq-len")
    put_caching(reading, "kv-cache-config.enable-block-reuse", on=True)
    put_hidden_host(reading, "disable-overlap-scheduler", on=False)
    read_trtllm_graphs(reading)
    read_trtllm_guesses(reading, facts)
    _read_numbers(reading, facts)
    read_trtllm_fleet(reading, facts)
    return tp * pp


def _read_experts(reading: Reading, facts: ModelFacts, tp: int, ep: int) -> None:
    """The degrees of experts multiply to tp: one that is given decides the other."""
    if reading.has(_MOE_TP) and not reading.has(_EP):
        cut = positive(reading, _MOE_TP)
        if tp % cut:
            reading.wrong(_MOE_TP, f"must divide --{_TP} {tp}, not {cut}")
        ep = max(1, tp // cut)
    elif reading.has(_MOE_TP) and positive(reading, _MOE_TP) * ep != tp:
        reading.wrong(_MOE_TP, f"times --{_EP} {ep} must be --{_TP} {tp}")
    if tp % ep:
        reading.wrong(_EP, f"must divide --{_TP} {tp}, not {ep}")
    if ep > 1 and not facts.experts:
        reading.wrong(_EP, "the model has no experts")
        return
    reading.put("serving.parallel.ep", ep, _EP, _MOE_TP)


def _read_limits(reading: Reading) -> None:
    for name, key in (
        ("max-batch-size", "max_sequences"), ("max-num-tokens", "token_budget"),
        ("kv-cache-config.tokens-per-block", "block_tokens"),
    ):  # fmt: skip
        if reading.has(name):
            reading.put(f"serving.engine.{key}", positive(reading, name), name)
    name = "kv-cache-config.free-gpu-memory-fraction"
    put_given(reading, "serving.engine.memory_fraction", fraction(reading, name), name,
              why="of what weights leave")  # fmt: skip
    if switched(reading, "enable-chunked-prefill"):
        reading.put("serving.engine.batching", "mixed", "enable-chunked-prefill",
                    why="prompts in chunks beside decoding")  # fmt: skip
    policy = reading.word(_POLICY, "GUARANTEED_NO_EVICT", (
        "GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH",
    ))  # fmt: skip
    if policy == "STATIC_BATCH":
        reading.put("serving.engine.batching", "static", _POLICY)
    else:
        held = policy == "GUARANTEED_NO_EVICT"
        put_given(reading, "serving.engine.reserve_output", held if reading.has(_POLICY) else None,
                  _POLICY)  # fmt: skip
    if reading.word("backend", "pytorch") not in ("pytorch", "tensorrt", "trt"):
        reading.wrong("backend", "modelled are pytorch and tensorrt (its batching is the same)")
    reading.say("backend", "kernels are those of the profile")
    for name in ("streaming", "extra-llm-api-options"):
        reading.say(name, _SAID[name])


_SAID = {
    "streaming": "each token is sent by itself",
    "extra-llm-api-options": "its keys stand here where moesim gets it by --file",
}


def _read_numbers(reading: Reading, facts: ModelFacts) -> None:
    put_formats(reading, facts.formats, why=f"{facts.checkpoint}, as published")
    if reading.has("dtype") and reading.word("dtype", "auto") in ("float16", "half"):
        put_formats(reading, {} if facts.formats else {"weights": "fp16", "head": "fp16"}, "dtype")
    say_else(reading, "dtype", "the type of what is not quantised")
    quantised = re.search(r"nvidia/.*(FP4|FP8)", facts.checkpoint, re.IGNORECASE)
    read_cache(reading, _CACHE, "fp8" if quantised else "bf16")
