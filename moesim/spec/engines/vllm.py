"""From vLLM's arguments to a serving scenario.

Rules: vllm/config (ModelConfig, ParallelConfig, SchedulerConfig: what they refuse), from memory,
unchecked. Expert parallelism is all of tensor times data parallel ranks:
docs/serving/expert_parallel_deployment.md.
"""

from types import MappingProxyType

from moesim.spec.engines.facts import (
    ModelFacts,
    check_cut,
    fraction,
    object_of,
    positive,
    put_given,
    put_two_batches,
    read_cache,
    read_quantization,
    say_else,
    switched,
    tokens,
)
from moesim.spec.engines.features import put_caching, put_hidden_host, put_longest, read_vllm_graphs
from moesim.spec.engines.fleet import read_vllm_fleet
from moesim.spec.engines.guesses import read_vllm_guesses
from moesim.spec.megatron.reading import Reading

_TP, _PP, _DP = "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"
_DCP, _PCP = "decode-context-parallel-size", "prefill-context-parallel-size"
_EP, _SEQUENCES, _BUDGET = "enable-expert-parallel", "max-num-seqs", "max-num-batched-tokens"
_EXCHANGES = {
    "naive": None, "pplx": None, "allgather_reducescatter": "allgather_reducescatter",
    "deepep_high_throughput": "deepep_normal", "deepep_low_latency": "deepep_low",
}  # fmt: skip
_METHODS = MappingProxyType(
    {
        "none": {}, "fp8": {"weights": "fp8"}, "fbgemm_fp8": {"weights": "fp8"},
        "modelopt": {"weights": "fp8"}, "modelopt_fp4": {"weights": "nvfp4"},
        "nvfp4": {"weights": "nvfp4"}, "ptpc_fp8": None, "compressed-tensors": {},
        "awq": {"weights": "int4_weight_only"}, "awq_marlin": {"weights": "int4_weight_only"},
        "gptq": {"weights": "int4_weight_only"}, "gptq_marlin": {"weights": "int4_weight_only"},
        "mxfp4": {"experts": "w4a16_mxfp4"}, "experts_int8": {"experts": "int8_weight_only"},
        "int8": {"weights": "int8"}, "bitsandbytes": None, "gguf": None, "quark": None,
        "torchao": None, "auto-round": None, "moe_wna16": {"experts": "int4_weight_only"},
    }
)  # fmt: skip
"""Values of --quantization: the formats of weights; None: not modelled."""


def read_vllm(reading: Reading, facts: ModelFacts) -> int:
    """Read all of it; return the devices that one deployment takes."""
    devices = _read_cut(reading, facts)
    _read_limits(reading)
    put_caching(reading, "enable-prefix-caching", on=True)
    put_hidden_host(reading, "async-scheduling", on=True)
    read_vllm_graphs(reading)
    read_vllm_guesses(reading, facts)
    _read_numbers(reading, facts)
    read_vllm_fleet(reading, facts)
    return devices


def _read_cut(reading: Reading, facts: ModelFacts) -> int:
    tp, pp, dp = (positive(reading, name) for name in (_TP, _PP, _DP))
    check_cut(reading, facts, (_TP, tp), (_PP, pp))
    reading.put("serving.parallel.tp", tp, _TP)
    reading.put("serving.parallel.pp", pp, _PP)
    if positive(reading, _PCP) > 1:
        reading.wrong(_PCP, "prompts cut over ranks are not modelled; leave it at 1")
    reading.say(_PCP, "no effect: 1 is no context parallelism")
    dcp = positive(reading, _DCP)
    if tp % dcp:
        reading.wrong(_DCP, f"must divide --{_TP} {tp}, not {dcp}")
    reading.put("serving.parallel.dcp", dcp, _DCP)
    if facts.experts:
        reading.put("serving.parallel.dp", dp, _DP)
    else:
        reading.say(_DP, f"{dp} replicas: a dense model's ranks share nothing")
        reading.mapped.update({_DP} & reading.given.keys())
    _read_experts(reading, facts, tp * dp)
    return tp * pp * dp


def _read_experts(reading: Reading, facts: ModelFacts, ranks: int) -> None:
    on = bool(switched(reading, _EP))
    if on and not facts.experts:
        reading.wrong(_EP, "the model has no experts")
        return
    if on:
        if facts.experts % ranks:
            reading.notes.append(f"{facts.experts} experts on {ranks} ranks: some hold more")
        reading.put("serving.parallel.ep", ranks, _EP, why=f"all {_TP} * {_DP} ranks")
    else:
        reading.say(_EP, "no effect: off, every rank holds a part of each expert")
    _read_exchange(reading, ranks, on=on)
    if switched(reading, "enable-eplb"):
        if not on or ranks == 1:
            reading.wrong("enable-eplb", f"needs --{_EP} and more than one rank")
        _read_copies(reading)
    for name in ("eplb-config", "num-redundant-experts"):
        say_else(reading, name, "no effect but for copies of experts with --enable-eplb")
    if switched(reading, "enable-dbo"):
        backend = reading.word("all2all-backend", "allgather_reducescatter")
        if not backend.startswith("deepep"):
            reading.wrong("enable-dbo", "needs --all2all-backend deepep_low_latency or "
                          "deepep_high_throughput")  # fmt: skip
        put_two_batches(reading, "enable-dbo")


def _read_copies(reading: Reading) -> None:
    """Copies of busy experts; without any, experts only move, which loads do not show."""
    config = object_of(reading, "eplb-config").get("num_redundant_experts", 0)
    copies = config if isinstance(config, int) else 0
    copies = reading.count("num-redundant-experts", copies)
    if copies < 0:
        reading.wrong("num-redundant-experts", f"must be at least 0, not {copies}")
    elif copies:
        reading.put("serving.parallel.redundant_experts", copies, "enable-eplb", "eplb-config",
                    "num-redundant-experts")  # fmt: skip
    else:
        reading.say("enable-eplb", "not modelled: without copies loads stay those of the law")


def _read_exchange(reading: Reading, ranks: int, *, on: bool) -> None:
    name = "all2all-backend"
    backend = reading.word(name, "allgather_reducescatter")
    if not reading.has(name):
        return
    if not on or ranks == 1 or reading.count(_DP, 1) == 1:
        reading.say(name, f"no effect without --{_EP} and --{_DP} above 1")
    elif (exchange := _EXCHANGES.get(backend)) is not None:
        reading.put("serving.parallel.exchange", exchange, name)
    else:
        known = ", ".join(one for one, key in _EXCHANGES.items() if key)
        reading.wrong(name, f"{backend} is not modelled; modelled are {known}")


def _read_limits(reading: Reading) -> None:
    sequences, budget = tokens(reading, _SEQUENCES), tokens(reading, _BUDGET)
    longest = tokens(reading, "max-model-len")
    put_given(reading, "serving.engine.max_sequences", sequences, _SEQUENCES)
    put_given(reading, "serving.engine.token_budget", budget, _BUDGET)
    if sequences and budget and budget < sequences:
        reading.wrong(_BUDGET, f"must be at least --{_SEQUENCES} {sequences}, not {budget}")
    if switched(reading, "enable-chunked-prefill") is False:
        if budget and longest and budget < longest:
            reading.wrong(_BUDGET, f"must be at least --max-model-len {longest} without chunks")
        reading.put("serving.engine.batching", "whole_prompts", "enable-chunked-prefill")
    say_else(reading, "enable-chunked-prefill", "as the engine does by itself")
    put_longest(reading, "max-model-len")
    share = fraction(reading, "gpu-memory-utilization")
    put_given(reading, "serving.engine.memory_fraction", share, "gpu-memory-utilization")
    if reading.has("block-size"):
        size = positive(reading, "block-size", 16)
        reading.put("serving.engine.block_tokens", size, "block-size")


def _read_numbers(reading: Reading, facts: ModelFacts) -> None:
    kind = reading.word("dtype", "auto", ("auto", "bfloat16", "half", "float16", "float",
                                          "float32"))  # fmt: skip
    if kind.startswith("float") and kind != "float16":
        reading.wrong("dtype", "float32 is not modelled: use auto, bfloat16 or float16")
    if kind in ("half", "float16") and not facts.formats and not reading.has("quantization"):
        reading.put("serving.formats.weights", "fp16", "dtype")
        reading.put("serving.formats.head", "fp16", "dtype")
    say_else(reading, "dtype", "the type of what is not quantised")
    read_quantization(reading, facts, "quantization", _METHODS)
    read_cache(reading, "kv-cache-dtype")
