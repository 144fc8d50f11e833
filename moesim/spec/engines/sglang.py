"""From SGLang's arguments to a serving scenario.

Rules: python/sglang/srt/server_args.py, check_server_args and __post_init__ (from memory,
unchecked). Under attention data parallelism the dp ranks are a part of the tp ranks, and share the
tokens of a chunk and the running requests.
"""

from types import MappingProxyType

from moesim.spec.engines.facts import (
    ModelFacts,
    check_cut,
    fraction,
    positive,
    put_given,
    put_two_batches,
    read_cache,
    read_quantization,
    say_else,
)
from moesim.spec.engines.features import (
    put_caching,
    put_hidden_host,
    put_longest,
    read_sglang_graphs,
)
from moesim.spec.engines.fleet import read_sglang_fleet
from moesim.spec.engines.guesses import read_sglang_guesses
from moesim.spec.megatron.reading import Reading

_TP, _PP, _DP, _EP = "tp-size", "pp-size", "dp-size", "ep-size"
_ATTENTION, _BACKEND, _CHUNK = "enable-dp-attention", "moe-a2a-backend", "chunked-prefill-size"
_METHODS = MappingProxyType(
    {
        "none": {}, "fp8": {"weights": "fp8"}, "blockwise_int8": None,
        "w8a8_fp8": {"weights": "fp8"}, "w8a8_int8": {"weights": "int8"},
        "modelopt": {}, "modelopt_fp8": {"weights": "fp8"}, "modelopt_fp4": {"weights": "nvfp4"},
        "awq": {"weights": "int4_weight_only"}, "awq_marlin": {"weights": "int4_weight_only"},
        "gptq": {"weights": "int4_weight_only"}, "gptq_marlin": {"weights": "int4_weight_only"},
        "compressed-tensors": {}, "mxfp4": {"experts": "w4a16_mxfp4"}, "w4afp8": None,
        "moe_wna16": {"experts": "int4_weight_only"}, "bitsandbytes": None, "gguf": None,
        "qoq": None, "marlin": None, "petit_nvfp4": None,
    }
)  # fmt: skip
"""Values of --quantization: the formats of weights; None: not modelled."""


def read_sglang(reading: Reading, facts: ModelFacts) -> int:
    """Read all of it; return the devices that one deployment takes."""
    tp, pp, dp = (positive(reading, name) for name in (_TP, _PP, _DP))
    attention = reading.has(_ATTENTION) and dp > 1
    if attention and tp % dp:
        reading.wrong(_DP, f"must divide --{_TP} {tp} with --{_ATTENTION}, not {dp}")
        return tp * pp
    if not attention:
        reading.say(_ATTENTION, f"no effect: --{_DP} is 1")
    shares = dp if attention else 1
    check_cut(reading, facts, (_TP, tp // shares), (_PP, pp))
    reading.put("serving.parallel.tp", tp // shares, _TP, *((_DP,) if attention else ()))
    reading.put("serving.parallel.pp", pp, _PP)
    if attention:
        reading.put("serving.parallel.dp", dp, _DP, _ATTENTION)
    elif dp > 1:
        reading.mapped.add(_DP)
        reading.say(_DP, f"{dp} replicas: without --{_ATTENTION} data parallel ranks are apart")
    _read_experts(reading, facts, tp)
    _read_limits(reading, shares)
    _read_prefixes(reading)
    put_hidden_host(reading, "disable-overlap-schedule", on=False)
    read_sglang_graphs(reading)
    read_sglang_guesses(reading, facts)
    _read_numbers(reading, facts)
    read_sglang_fleet(reading, facts)
    return tp * pp * (1 if attention else dp)


def _read_experts(reading: Reading, facts: ModelFacts, tp: int) -> None:
    backend = reading.word(_BACKEND, "none", (
        "none", "deepep", "mooncake", "nixl", "mori", "ascend_fuseep", "flashinfer",
    ))  # fmt: skip
    deepep = backend == "deepep" or reading.has("enable-deepep-moe")
    whole = [name for name in (_BACKEND, "enable-deepep-moe", "enable-ep-moe")
             if reading.has(name) and (name != _BACKEND or backend != "none")]  # fmt: skip
    ep = tp if whole else positive(reading, _EP)
    if tp % ep:
        reading.wrong(_EP, f"must divide --{_TP} {tp}, not {ep}")
    if ep > 1 and not facts.experts:
        reading.wrong(_EP, "the model has no experts")
        return
    reading.put("serving.parallel.ep", ep, *(whole or [_EP]))
    if whole and reading.has(_EP):
        reading.say(_EP, f"no effect: {whole[0]} spreads experts over all {tp} ranks")
    _read_exchange(reading, backend, deepep=deepep)
    if reading.has("enable-two-batch-overlap"):
        if not deepep and backend == "none":
            reading.wrong("enable-two-batch-overlap", f"needs --{_BACKEND} other than none")
        put_two_batches(reading, "enable-two-batch-overlap")
    _put_one_batch(reading)
    copies = "ep-num-redundant-experts"
    if reading.has(copies) and ep > 1:
        reading.put("serving.parallel.redundant_experts", reading.count(copies), copies)
    say_else(reading, copies, "no effect: experts are not spread")
    reading.say("enable-eplb", "not modelled: loads of ranks stay those of the law")


def _put_one_batch(reading: Reading) -> None:
    """Shared experts beside the exchange; the combine beside experts' second product is left out.

    docs/advanced_features/expert_parallelism.md, single-batch overlap: from memory, unchecked.
    """
    name, both = "enable-single-batch-overlap", "enable-two-batch-overlap"
    ranks = reading.scenario.get("serving.parallel.dp")
    if reading.has(both):
        reading.say(name, f"not modelled: beside --{both}, which is taken")
    elif reading.has(name) and ranks is not None and ranks.value > 1:
        reading.put("serving.engine.overlap", "shared_expert", name,
                    why="shared experts beside the exchange, no more of it")  # fmt: skip
    else:
        reading.say(name, "not modelled: without attention data parallel ranks nothing overlaps")


def _read_prefixes(reading: Reading) -> None:
    name, beside = "disable-radix-cache", "enable-hierarchical-cache"
    if reading.has(name) and reading.has(beside):
        reading.wrong(name, f"contradicts --{beside}")
    put_caching(reading, name, on=False)


def _read_exchange(reading: Reading, backend: str, *, deepep: bool) -> None:
    mode = reading.word("deepep-mode", "auto", ("auto", "normal", "low_latency"))
    if deepep:
        exchange = {"normal": "deepep_normal", "low_latency": "deepep_low"}.get(mode, "deepep")
        reading.put("serving.parallel.exchange", exchange, _BACKEND, "enable-deepep-moe",
                    "deepep-mode")  # fmt: skip
        return
    reading.say("deepep-mode", f"no effect without --{_BACKEND} deepep")
    if backend != "none":
        reading.wrong(_BACKEND, f"{backend} is not modelled; modelled are none and deepep")
    reading.say(_BACKEND, "no effect: as by itself")


def _read_limits(reading: Reading, shares: int) -> None:
    why = f"shared by {shares} attention ranks" if shares > 1 else ""
    if reading.has("max-running-requests"):
        running = positive(reading, "max-running-requests") // shares
        reading.put("serving.engine.max_sequences", max(1, running), "max-running-requests",
                    why=why)  # fmt: skip
    page = positive(reading, "page-size") if reading.has("page-size") else None
    put_given(reading, "serving.engine.block_tokens", page, "page-size")
    _read_chunk(reading, shares, page or 1, why)
    share = fraction(reading, "mem-fraction-static")
    put_given(reading, "serving.engine.memory_fraction", share, "mem-fraction-static",
              why="weights and cache")  # fmt: skip
    if reading.has("enable-mixed-chunk"):
        reading.put("serving.engine.batching", "mixed", "enable-mixed-chunk")
    put_longest(reading, "context-length")


def _read_chunk(reading: Reading, shares: int, page: int, why: str) -> None:
    prompts = positive(reading, "max-prefill-tokens", 16384)
    chunk = reading.count(_CHUNK, 0)
    if chunk > 0:
        if chunk % page:
            reading.wrong(_CHUNK, f"must be a multiple of --page-size {page}, not {chunk}")
        budget = min(chunk // shares or 1, prompts)
        reading.put("serving.engine.token_budget", budget, _CHUNK, "max-prefill-tokens", why=why)
        return
    if reading.has(_CHUNK) and chunk == -1:
        reading.put("serving.engine.token_budget", prompts, "max-prefill-tokens", _CHUNK,
                    why="chunks off: prompts up to max-prefill-tokens together")  # fmt: skip
        reading.notes.append("chunked prefill is off in the engine; a longer prompt than "
                             f"{prompts} tokens would still go in pieces here")  # fmt: skip
        return
    if reading.has(_CHUNK):
        reading.wrong(_CHUNK, f"must be at least 1, or -1 for off, not {chunk}")
    reading.say("max-prefill-tokens", f"no effect: --{_CHUNK} limits an iteration before it")


def _read_numbers(reading: Reading, facts: ModelFacts) -> None:
    kind = reading.word("dtype", "auto", ("auto", "half", "float16", "bfloat16", "float",
                                          "float32"))  # fmt: skip
    if kind in ("float", "float32"):
        reading.wrong("dtype", "float32 is not modelled: use auto, bfloat16 or float16")
    if kind in ("half", "float16") and not facts.formats and not reading.has("quantization"):
        reading.put("serving.formats.weights", "fp16", "dtype")
        reading.put("serving.formats.head", "fp16", "dtype")
    say_else(reading, "dtype", "the type of what is not quantised")
    read_quantization(reading, facts, "quantization", _METHODS)
    read_cache(reading, "kv-cache-dtype")
