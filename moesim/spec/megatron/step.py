"""What a step does: from Megatron-LM's training arguments to `training` and `routing`.

Defaults and rules: Megatron-LM, megatron/training/arguments.py and
core/transformer/transformer_config.py (from memory of the releases 0.12 to 0.15, unchecked line by
line).
"""

import math

from moesim.spec.megatron.cut import degrees
from moesim.spec.megatron.reading import Reading


def read_step(reading: Reading, devices: int) -> None:
    """Read batch, precision, optimizer, recomputation, kernels and overlap."""
    _read_batch(reading, devices)
    _read_precision(reading)
    _read_optimizer(reading)
    _read_recompute(reading)
    _read_kernels(reading)
    _read_graphs(reading)
    _read_tensor_overlap(reading)
    _read_offload(reading)
    if reading.has("num-experts"):
        _read_exchange(reading)
        return
    for name in (_BATCH, _SHARED, _DELAY):
        reading.say(name, "no effect without --num-experts")


def _read_batch(reading: Reading, devices: int) -> None:
    for name in ("seq-length", "micro-batch-size"):
        if not reading.has(name):
            reading.wrong(name, "has to be given")
    micro = max(1, reading.count("micro-batch-size", 1))
    dp = max(1, devices // math.prod(degrees(reading)))
    total = reading.count("global-batch-size", micro * dp)
    reading.put("training.sequence_length", reading.count("seq-length", 1), "seq-length")
    reading.put("training.global_batch", total, "global-batch-size")
    reading.put("training.micro_batch", micro, "micro-batch-size")
    if total % (micro * dp):
        reading.wrong(
            "global-batch-size",
            f"must be a multiple of micro-batch-size * dp = {micro} * {dp}, not {total}",
        )


_RECIPES = ("delayed", "tensorwise", "mxfp8", "blockwise")


def _read_precision(reading: Reading) -> None:
    if reading.has("bf16") and reading.has("fp16"):
        reading.wrong("bf16", "cannot stand beside --fp16")
    if reading.has("fp4-format"):
        reading.wrong("fp4-format", "training in fp4 is not modelled")
    if reading.has("fp8-format"):
        reading.word("fp8-format", "hybrid", ("e4m3", "hybrid"))
        reading.put("training.precision", "fp8", "fp8-format")
        recipe = reading.word("fp8-recipe", "delayed", _RECIPES)
        reading.put("training.fp8_recipe", recipe, "fp8-recipe")
        for name in ("bf16", "fp16"):
            reading.say(name, "type of what is not in fp8")
        return
    reading.say("fp8-recipe", "no effect without --fp8-format")
    kind = "bf16" if reading.has("bf16") else "fp16" if reading.has("fp16") else "fp32"
    reading.put("training.precision", kind, "bf16", "fp16")


def _read_optimizer(reading: Reading) -> None:
    kind = reading.word("optimizer", "adam", ("adam", "sgd"))
    reading.put("training.optimizer.kind", kind, "optimizer")
    if reading.has("optimizer-cpu-offload"):
        share = reading.real("optimizer-offload-fraction", 1.0)
        reading.put("training.optimizer.offload", share, "optimizer-cpu-offload",
                    "optimizer-offload-fraction")  # fmt: skip
    reading.say("optimizer-offload-fraction", "no effect without --optimizer-cpu-offload")
    _read_moments(reading)
    grads = reading.word("main-grads-dtype", "fp32", ("fp32", "bf16"))
    grads = "bf16" if reading.has("grad-reduce-in-bf16") else grads
    reading.put("training.optimizer.gradient_dtype", grads, "grad-reduce-in-bf16",
                "main-grads-dtype")  # fmt: skip
    if grads == "bf16" and reading.has("accumulate-allreduce-grads-in-fp32"):
        reading.wrong("grad-reduce-in-bf16", "cannot stand beside "
                      "--accumulate-allreduce-grads-in-fp32")  # fmt: skip


_AWARE, _MOMENTS = "use-precision-aware-optimizer", ("exp-avg-dtype", "exp-avg-sq-dtype")
_MOMENT_KINDS = ("fp32", "fp16", "bf16", "fp8")
_MOMENT_KEYS = ("training.optimizer.moment_dtype", "training.optimizer.second_moment_dtype")


def _read_moments(reading: Reading) -> None:
    """Read the types of Adam's two moments."""
    reading.say(_AWARE, f"types of moments: --{_MOMENTS[0]}, --{_MOMENTS[1]}")
    first, second = (reading.word(name, "fp32", _MOMENT_KINDS) for name in _MOMENTS)
    for name, kind in zip(_MOMENTS, (first, second), strict=True):
        if kind != "fp32" and not reading.has(_AWARE):
            reading.wrong(name, f"needs --{_AWARE}")
            return
    if first == second:
        reading.put(_MOMENT_KEYS[0], first, *_MOMENTS)
        return
    for key, kind, name in zip(_MOMENT_KEYS, (first, second), _MOMENTS, strict=True):
        reading.put(key, kind, name)


_GRANULARITY, _METHOD = "recompute-granularity", "recompute-method"
_LAYERS, _MODULES = "recompute-num-layers", "recompute-modules"
_KNOWN_MODULES = ("core_attn", "moe_act", "layernorm", "mla_up_proj", "mlp", "moe",
                  "shared_experts")  # fmt: skip


def _read_recompute(reading: Reading) -> None:
    kind = reading.word(_GRANULARITY, "", ("full", "selective"))
    if reading.has("recompute-activations"):
        kind = kind or "selective"
    if kind == "full":
        _read_full(reading)
        return
    for name in (_METHOD, _LAYERS):
        reading.say(name, f"no effect without --{_GRANULARITY} full")
    modules: list[str] = []
    if kind == "selective":
        given = reading.given.get(_MODULES)
        modules = list(given.values) if given else ["core_attn"]
    reading.say(_MODULES, f"no effect without --{_GRANULARITY} selective" if not kind else "")
    if reading.has("moe-layer-recompute") and "moe" not in modules:
        modules.append("moe")
    for name in modules:
        if name not in _KNOWN_MODULES:
            reading.wrong(_MODULES, f"'{name}' is none of {', '.join(_KNOWN_MODULES)}")
    ours = [name for name in _KNOWN_MODULES if name in modules]
    if ours:
        reading.put("training.recompute", ours, _MODULES, _GRANULARITY, "recompute-activations",
                    "moe-layer-recompute")  # fmt: skip


def _read_full(reading: Reading) -> None:
    method = reading.word(_METHOD, "", ("uniform", "block"))
    if reading.has(_MODULES):
        reading.wrong(_MODULES, f"cannot stand beside --{_GRANULARITY} full")
    if not method or not reading.has(_LAYERS):
        missing = _METHOD if not method else _LAYERS
        reading.wrong(_GRANULARITY, f"full needs --{missing}")
        return
    number = reading.count(_LAYERS)
    why = ""
    if method == "uniform" and number > 1:
        why = f"the input of every layer is kept, not of every {number}th"
    elif method == "block":
        why = f"all layers; Megatron-LM: the first {number} of a chunk"
    reading.put("training.recompute", "full", _GRANULARITY, _METHOD, _LAYERS, why=why)


def _read_kernels(reading: Reading) -> None:
    local = reading.word("transformer-impl", "transformer_engine",
                         ("transformer_engine", "local")) == "local"  # fmt: skip
    backends = ("auto", "flash", "fused", "unfused", "local")
    backend = reading.word("attention-backend", "auto", backends)
    plain = backend in ("unfused", "local") or (local and not reading.has("use-flash-attn"))
    reading.put("training.attention_kernel", "unfused" if plain else "fused", "attention-backend",
                "use-flash-attn", "transformer-impl")  # fmt: skip
    fused = reading.has("cross-entropy-loss-fusion")
    kind = reading.word("cross-entropy-fusion-impl", "native", ("native", "te"))
    loss = {"native": "native", "te": "fused"}[kind] if fused else "unfused"
    reading.put("training.cross_entropy", loss, "cross-entropy-loss-fusion",
                *(["cross-entropy-fusion-impl"] if fused else []))  # fmt: skip
    reading.say("cross-entropy-fusion-impl", "" if fused else "no effect without "
                "--cross-entropy-loss-fusion")  # fmt: skip


_IMPL, _SCOPE = "cuda-graph-impl", "cuda-graph-scope"
_SCOPES = ("full", "full_iteration", "attn", "mlp", "moe", "moe_router", "moe_preprocess", "mamba")


def _read_graphs(reading: Reading) -> None:
    """Graphs of whole iterations or layers, or of attention and router in each layer."""
    impl = reading.word(_IMPL, "none", ("none", "local", "transformer_engine"))
    if impl == "none" and not reading.has("enable-cuda-graph", "external-cuda-graph"):
        reading.say(_SCOPE, f"no effect without --{_IMPL}")
        reading.say(_IMPL, "training.cuda_graph: none")
        reading.put("training.cuda_graph", "none", _IMPL)
        return
    given = reading.given.get(_SCOPE)
    scope = tuple(part for value in (given.values if given else ()) for part in value.split(","))
    for part in scope:
        if part not in _SCOPES:
            reading.wrong(_SCOPE, f"'{part}' is none of {', '.join(_SCOPES)}")
    some = {"attn", "moe_router", "moe_preprocess"} & set(scope)
    whole = not some or {"full", "full_iteration"} & set(scope)
    why = ""
    if whole and "full_iteration" not in scope:
        why = "graphs of whole layers are taken as one of the pass"
    elif not whole and not {"attn", "moe_router"} <= set(scope):
        why = "taken as attention and router"
    reading.put("training.cuda_graph", "full" if whole else "attention_router", _IMPL,
                "enable-cuda-graph", "external-cuda-graph", _SCOPE, why=why)  # fmt: skip


_TP_OVERLAP, _OFFLOAD = "tp-comm-overlap", "cpu-offloading-num-layers"


def _read_tensor_overlap(reading: Reading) -> None:
    if degrees(reading)[0] == 1:
        reading.say(_TP_OVERLAP, "no effect: tensor-model-parallel-size is 1")
        return
    if reading.has(_TP_OVERLAP) and not reading.has("sequence-parallel"):
        reading.wrong(_TP_OVERLAP, "needs --sequence-parallel")
        return
    on = reading.has(_TP_OVERLAP)
    reading.put("training.overlap.tensor_parallel", on, _TP_OVERLAP)


def _read_offload(reading: Reading) -> None:
    """Megatron-LM's rules for activations that wait in the host's memory."""
    layers = reading.count(_OFFLOAD)
    if layers <= 0:
        reading.say(_OFFLOAD, "no effect: 0 layers")
        return
    whole = reading.count("num-layers")
    for wrong, message in (
        (layers >= whole, f"must be below --num-layers {whole}"),
        (degrees(reading)[1] > 1, "cannot stand beside pipeline parallelism"),
        (reading.has(_GRANULARITY, "recompute-activations"), "cannot stand beside recomputation"),
    ):
        if wrong:
            reading.wrong(_OFFLOAD, message)
            return
    reading.put("training.offload_layers", layers, _OFFLOAD, why="their weights stay")


_BATCH, _SHARED = "overlap-moe-expert-parallel-comm", "moe-shared-expert-overlap"
_DELAY = "delay-wgrad-compute"


def _read_exchange(reading: Reading) -> None:
    """What runs beside the exchange of tokens, with the rules of TransformerConfig."""
    dispatcher = reading.word("moe-token-dispatcher-type", "allgather")
    if reading.has(_SHARED):
        if not reading.has("moe-shared-expert-intermediate-size"):
            reading.wrong(_SHARED, "needs --moe-shared-expert-intermediate-size")
        if dispatcher == "allgather":
            reading.wrong(_SHARED, "needs --moe-token-dispatcher-type alltoall or flex")
    if not reading.has(_BATCH):
        if reading.has(_SHARED):
            reading.put("training.overlap.expert_exchange", "shared_expert", _SHARED)
        if reading.has(_DELAY):
            reading.wrong(_DELAY, f"needs --{_BATCH}")
        return
    _check_batch(reading, dispatcher)
    reading.put("training.overlap.expert_exchange", "batch", _BATCH)
    if reading.has(_DELAY):
        reading.put("training.overlap.delay_weight_gradients", True, _DELAY)


def _check_batch(reading: Reading, dispatcher: str) -> None:
    pp = degrees(reading)[1]
    chunks = ("num-layers-per-virtual-pipeline-stage", "num-virtual-stages-per-pipeline-rank",
              "pipeline-model-parallel-layout")  # fmt: skip
    for wrong, message in (
        (reading.has(_SHARED), f"cannot stand beside --{_SHARED}"),
        (reading.count("expert-model-parallel-size", 1) == 1, "needs expert-model-parallel-size "
         "above 1"),
        (dispatcher == "allgather", "needs --moe-token-dispatcher-type alltoall or flex"),
        (not reading.has("bf16", "fp16"), "needs --bf16 or --fp16"),
        (reading.word("recompute-granularity", "") == "full", "cannot stand beside full "
         "recomputation"),
        (pp > 1 and not reading.has(*chunks), "needs several chunks per stage: "
         f"--{chunks[1]} or its kin"),
        (reading.count("mtp-num-layers") > 1, "takes at most one MTP module"),
    ):  # fmt: skip
        if wrong:
            reading.wrong(_BATCH, message)
