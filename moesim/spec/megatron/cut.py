"""How the model is cut: from Megatron-LM's parallel arguments to `parallel`.

Rules that Megatron-LM itself enforces: megatron/training/arguments.py, validate_args, and
core/transformer/transformer_config.py, __post_init__ (from memory, unchecked line by line).
"""

import math
import re

from moesim.errors import nearest
from moesim.spec.megatron.reading import Reading
from moesim.spec.pipeline_text import pipeline_chunks


def read_cut(reading: Reading, devices: int) -> None:
    """Read degrees, pipeline, sharding, dispatcher and rank order for a run on `devices`."""
    for key, name in (
        ("tp", "tensor-model-parallel-size"), ("pp", "pipeline-model-parallel-size"),
        ("cp", "context-parallel-size"), ("ep", "expert-model-parallel-size"),
    ):  # fmt: skip
        reading.put(f"parallel.{key}", reading.count(name, 1), name)
    if reading.has("expert-tensor-parallel-size"):
        etp = reading.count("expert-tensor-parallel-size")
        reading.put("parallel.etp", etp, "expert-tensor-parallel-size")
    _check_degrees(reading, devices)
    if reading.problems:
        return
    _read_sequence(reading)
    _read_context(reading)
    _read_pipeline(reading)
    _read_sharding(reading, devices)
    _read_dispatcher(reading)
    _read_order(reading)


def degrees(reading: Reading) -> tuple[int, int, int]:
    """Return tp, pp and cp."""
    tp = reading.count("tensor-model-parallel-size", 1)
    pp = reading.count("pipeline-model-parallel-size", 1)
    return tp, pp, reading.count("context-parallel-size", 1)


def _check_degrees(reading: Reading, devices: int) -> None:
    (tp, pp, cp), ep = degrees(reading), reading.count("expert-model-parallel-size", 1)
    if min(tp, pp, cp, ep) < 1:
        reading.wrong("tensor-model-parallel-size", "degrees are at least 1")
        return
    etp, experts = reading.count("expert-tensor-parallel-size", tp), reading.count("num-experts")
    if devices % (tp * pp * cp):
        reading.wrong(
            "tensor-model-parallel-size",
            f"tp * pp * cp = {tp * pp * cp} must divide the {devices} devices",
        )
    elif devices // pp % (etp * ep):
        reading.wrong(
            "expert-model-parallel-size",
            f"etp * ep = {etp * ep} must divide the {devices // pp} devices of a stage",
        )
    if ep > 1 and not experts:
        reading.wrong("expert-model-parallel-size", "needs --num-experts")
    elif experts % ep:
        reading.wrong("expert-model-parallel-size", f"must divide --num-experts {experts}")
    heads = reading.count("num-attention-heads")
    if heads % tp:
        reading.wrong("tensor-model-parallel-size", f"must divide --num-attention-heads {heads}")


def _read_sequence(reading: Reading) -> None:
    """Megatron-LM drops sequence parallelism where tp is 1, and asks for it with experts."""
    tp = degrees(reading)[0]
    if tp == 1:
        reading.say("sequence-parallel", "no effect: tensor-model-parallel-size is 1")
        return
    if reading.has("num-experts") and not reading.has("sequence-parallel"):
        reading.wrong("sequence-parallel", "has to be given: experts with tp above 1 need it")
        return
    on = reading.has("sequence-parallel")
    reading.put("parallel.sequence_parallel", on, "sequence-parallel")


_CP_COMM = {"p2p": "ring", "all_gather": "all_gather", "a2a": "all_to_all"}
_TWO_LEVELS, _LEVELS = "a2a+p2p", "hierarchical-context-parallel-sizes"


def _read_context(reading: Reading) -> None:
    """One kind of transfer for all layers, or one word per layer."""
    name, cp = "cp-comm-type", degrees(reading)[2]
    kinds = set(reading.given[name].values) if reading.has(name) else {"p2p"}
    for kind in sorted(kinds - {*_CP_COMM, _TWO_LEVELS}):
        allowed = (*_CP_COMM, _TWO_LEVELS)
        message = f"must be one of {', '.join(allowed)}, not '{kind}'.{nearest(kind, allowed)}"
        reading.wrong(name, message)
        return
    if cp == 1:
        reading.say(name, "no effect: context-parallel-size is 1")
    elif _TWO_LEVELS in kinds:
        if not reading.has(_LEVELS):
            reading.wrong(name, f"{_TWO_LEVELS} needs --{_LEVELS}")
        reading.leave(name, "heads apart inside a node, a ring between nodes: one ring is assumed")
    elif len(kinds) > 1:
        reading.leave(name, "kinds that differ by layer: a ring is assumed for all")
    else:
        reading.put("parallel.cp_comm", _CP_COMM[kinds.pop()], name)


_PER_CHUNK, _CHUNKS = (
    "num-layers-per-virtual-pipeline-stage",
    "num-virtual-stages-per-pipeline-rank",
)
_FIRST, _LAST = "decoder-first-pipeline-num-layers", "decoder-last-pipeline-num-layers"
_LAYOUT = "pipeline-model-parallel-layout"
_ACCOUNT = ("account-for-embedding-in-pipeline-split", "account-for-loss-in-pipeline-split")


_MTP_BEFORE = re.compile(r"(m(?:\*\d+)?),?\s*\|\s*L\s*$")


def _read_pipeline(reading: Reading) -> None:
    pp = degrees(reading)[1]
    if reading.has(_PER_CHUNK) and reading.has(_CHUNKS):
        reading.wrong(_PER_CHUNK, f"cannot stand beside --{_CHUNKS}")
    if pp == 1:
        for name in (_PER_CHUNK, _CHUNKS, _LAYOUT, _FIRST, _LAST):
            if reading.has(name):
                reading.wrong(name, "needs --pipeline-model-parallel-size above 1")
        for name in _ACCOUNT:
            reading.say(name, "no effect: there is no pipeline")
        return
    if reading.has(_LAYOUT):
        _read_layout(reading, pp)
        return
    _read_stages(reading, pp)


def _read_layout(reading: Reading, pp: int) -> None:
    """The layout says the chunks, and so how many a stage has."""
    for name in (_FIRST, _LAST, *_ACCOUNT, _PER_CHUNK):
        if reading.has(name):
            reading.wrong(name, f"cannot stand beside --{_LAYOUT}")
    given = reading.word(_LAYOUT, "")
    text = _MTP_BEFORE.sub(r"|\1L", given)
    why = "" if text == given else "MTP modules on the chunk of the logits, not the one before"
    try:
        chunks = pipeline_chunks(text)
    except ValueError as error:
        reading.wrong(_LAYOUT, str(error))
        return
    if len(chunks) % pp:
        reading.wrong(_LAYOUT, f"has {len(chunks)} chunks, no multiple of the {pp} stages")
        return
    layers, wanted = sum(one.count("t") for one in chunks), reading.count("num-layers")
    if layers != wanted:
        reading.wrong(_LAYOUT, f"has {layers} layers, --num-layers {wanted}")
    if len(chunks) > pp:
        reading.put("parallel.vpp", len(chunks) // pp, _LAYOUT, _CHUNKS)
    reading.put("parallel.layout", text, _LAYOUT, why=why)


def _read_stages(reading: Reading, pp: int) -> None:
    """Equal stages; a first or last one of another size, and E or L in the place of a layer."""
    sizes = _stage_sizes(reading, pp)
    if sizes is None:
        return
    vpp = reading.count(_CHUNKS, 1)
    if reading.has(_PER_CHUNK):
        per_chunk = max(1, reading.count(_PER_CHUNK))
        if sizes[0] % per_chunk:
            reading.wrong(_PER_CHUNK, f"must divide the {sizes[0]} layers of a stage")
            return
        vpp = sizes[0] // per_chunk
    if any(size % vpp for size in sizes):
        reading.wrong(_CHUNKS, f"must divide the layers of a stage: {sorted(set(sizes))}")
        return
    reading.put("parallel.vpp", vpp, _PER_CHUNK if reading.has(_PER_CHUNK) else _CHUNKS)
    uneven = reading.has(_FIRST, _LAST, *_ACCOUNT)
    if uneven:
        reading.put("parallel.layout", _layout(reading, sizes, vpp), _FIRST, _LAST, *_ACCOUNT)


def _stage_sizes(reading: Reading, pp: int) -> list[int] | None:
    """Return the slots of each stage; E and L take one where they are accounted for."""
    layers = reading.count("num-layers") + sum(reading.has(name) for name in _ACCOUNT)
    first, last = (reading.count(name) for name in (_FIRST, _LAST))
    if (first or last) and reading.has(*_ACCOUNT):
        reading.wrong(
            _FIRST if first else _LAST, f"cannot stand beside --{_ACCOUNT[0]} or its twin"
        )
        return None
    middle = pp - bool(first) - bool(last)
    rest = layers - first - last
    if middle < 0 or rest < 0 or (rest and (not middle or rest % middle)):
        what = f"{middle} stages must share {rest} layers evenly"
        extra = " (E and L counted)" if reading.has(*_ACCOUNT) else ""
        reading.wrong("pipeline-model-parallel-size", f"{what}{extra}")
        return None
    each = rest // middle if middle else 0
    return [*([first] if first else []), *[each] * middle, *([last] if last else [])]


def _layout(reading: Reading, sizes: list[int], vpp: int) -> str:
    chunks = ["t" * (size // vpp) for _ in range(vpp) for size in sizes]
    if reading.has(_ACCOUNT[0]):
        chunks[0] = chunks[0][1:]
    if reading.has(_ACCOUNT[1]):
        chunks[-1] = chunks[-1][1:]
    chunks[0] = f"E{chunks[0]}"
    chunks[-1] += "m" * reading.count("mtp-num-layers") + "L"
    return "|".join(chunks)


_FSDP = ("use-megatron-fsdp", "use-custom-fsdp", "use-torch-fsdp2")
_STRATEGY = "data-parallel-sharding-strategy"
_STRATEGIES = ("no_shard", "optim", "optim_grads", "optim_grads_params")


def _read_sharding(reading: Reading, devices: int) -> None:
    strategy = reading.word(_STRATEGY, "no_shard", _STRATEGIES)
    if reading.has("use-torch-fsdp2"):
        strategy = "optim_grads_params"
    elif not reading.has(*_FSDP):
        reading.say(_STRATEGY, "no effect without --use-megatron-fsdp")
        strategy = "optim" if reading.has("use-distributed-optimizer") else "no_shard"
    distributed = strategy != "no_shard"
    reading.put("training.optimizer.distributed", distributed, "use-distributed-optimizer", *_FSDP,
                _STRATEGY)  # fmt: skip
    if strategy in ("optim_grads", "optim_grads_params"):
        _put_fsdp(reading, devices, keeps=strategy == "optim_grads")
    if reading.word("outer-dp-sharding-strategy", "no_shard", ("no_shard", "optim")) == "optim":
        reading.leave("outer-dp-sharding-strategy", "shard groups would be parts of the replicas")
    reading.say("outer-dp-sharding-strategy", "one shard group of all replicas")
    _read_data_overlap(reading, distributed=distributed)


def _put_fsdp(reading: Reading, devices: int, *, keeps: bool) -> None:
    dp = devices // math.prod(degrees(reading))
    if dp == 1:
        return
    reading.put("parallel.fsdp", dp, *_FSDP, _STRATEGY, why="all data-parallel ranks")
    if keeps or reading.has("torch-fsdp2-no-reshard-after-forward"):
        reading.put("parallel.reshard_after_forward", False, _STRATEGY,
                    "torch-fsdp2-no-reshard-after-forward")  # fmt: skip


def _read_data_overlap(reading: Reading, *, distributed: bool) -> None:
    reduces, gathers = reading.has("overlap-grad-reduce"), reading.has("overlap-param-gather")
    if gathers and not distributed:
        reading.wrong("overlap-param-gather", "needs --use-distributed-optimizer or fsdp")
    if gathers and not reduces:
        reading.wrong("overlap-param-gather", "needs --overlap-grad-reduce")
    if reading.has("use-torch-fsdp2"):
        return  # FSDP2 always prefetches: moesim's default
    reading.put("training.overlap.grad_reduce", reduces, "overlap-grad-reduce")
    reading.put("training.overlap.param_gather", gathers, "overlap-param-gather")


def _read_dispatcher(reading: Reading) -> None:
    name = "moe-token-dispatcher-type"
    if not reading.has("num-experts"):
        for one in (name, "moe-enable-deepep", "moe-flex-dispatcher-backend"):
            reading.say(one, "no effect without --num-experts")
        return
    kind = reading.word(name, "allgather", ("allgather", "alltoall", "alltoall_seq", "flex"))
    backend = reading.word(
        "moe-flex-dispatcher-backend", "deepep", ("deepep", "hybridep", "ncclep")
    )
    if reading.has("moe-enable-deepep") and kind != "flex":
        reading.wrong("moe-enable-deepep", f"needs --{name} flex")
    ours = {"flex": backend, "alltoall_seq": "alltoall"}.get(kind, kind)
    why = "alltoall_seq was a layout of alltoall" if kind == "alltoall_seq" else ""
    if ours == "ncclep":
        ours, why = "deepep", "ncclep is taken as DeepEP: no measured curve of its own"
    by = [name]
    by += ["moe-enable-deepep", "moe-flex-dispatcher-backend"] if kind == "flex" else []
    reading.put("parallel.dispatcher", ours, *by, why=why)
    if kind != "flex":
        reading.say("moe-flex-dispatcher-backend", "no effect: not flex")


def _read_order(reading: Reading) -> None:
    """Megatron-LM numbers ranks tp-cp-ep-dp-pp, or pp before dp where the flag says so."""
    if not reading.has("use-tp-pp-dp-mapping"):
        return
    reading.put("parallel.rank_order", "tp-cp-ep-pp-dp", "use-tp-pp-dp-mapping")
