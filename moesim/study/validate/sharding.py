"""Reads how a case shards its weights over data-parallel ranks, and its batch on TPUs."""

from typing import Any

from moesim.spec.cases import Case, Words
from moesim.study.validate.maxtext import device_batch, guessed_batch, is_maxtext, is_tpu
from moesim.study.validate.options import Reading
from moesim.study.validate.tpu import mesh_habits


def read_sharding(case: Case, reading: Reading, dp: int) -> None:
    """Read the shard group over `dp` data-parallel ranks: a number, or true or `all` for all.

    MaxText shards over all but the replicas of slices (dcn_dp). With context parallelism sources
    may count its ranks too.
    """
    cut = case.part("parallel")
    said = cut.get("fsdp")
    cp = reading.parallel.get("cp", 1)
    if is_maxtext(case):
        ranks = dp // (cut.get("dcn_dp") or 1)
    elif said is True or said == "all" or said == dp * cp:
        ranks = dp
    elif isinstance(said, int) and not isinstance(said, bool):
        ranks = said
    else:
        return
    reading.parallel["fsdp"] = max(1, ranks)
    if str(case.part("options").get("mp_mode", "")).upper() == "PURE":
        # composer, MixedPrecision PURE: parameters, gradients and buffers in the low precision
        reading.training.setdefault("optimizer", {})["gradient_dtype"] = "bf16"


def read_tpu_batch(case: Case, reading: Reading, chips: Any) -> bool:
    """Read the batch of a TPU case; False where it is stated as elsewhere."""
    cut = case.part("parallel")
    if not is_tpu(case) or not isinstance(chips, int):
        return False
    if is_maxtext(case):
        return _read_per_device(cut, reading, chips)
    return _read_mesh(case, cut, reading, chips)


def _read_per_device(cut: Words, reading: Reading, chips: int) -> bool:
    """The model parallel ranks of a replica take the sequences of all of them together."""
    batch = device_batch(cut)
    if batch is None:
        return False
    if batch.note:
        reading.assume(batch.note)
    sharing = reading.parallel.get("tp", 1) * reading.parallel.get("cp", 1)
    reading.training["sequence_length"] = batch.length
    reading.training["global_batch"] = cut.get("gbs") or batch.sequences * chips
    reading.training["micro_batch"] = batch.sequences * sharing
    return True


def _read_mesh(case: Case, cut: Words, reading: Reading, chips: int) -> bool:
    """Mesh TensorFlow counts cores; a device is a chip with the experts of its cores.

    T5 and Switch: Adafactor, one pass over the batch of a core. Sources: arXiv 1910.10683, 3.1.2;
    arXiv 2101.03961, table 1.
    """
    batch, cores = guessed_batch(case), cut.get("cores")
    if batch is None or not isinstance(cores, int):
        return False
    reading.parallel["ep"] = 1
    if case.text("cls") == "moe":
        reading.parallel["ep"] = max(1, cut.get("ep", 1) * chips // cores)
    reading.training |= {
        "sequence_length": batch.length,
        "target_length": batch.target_length,
        "global_batch": batch.sequences,
        "micro_batch": max(1, batch.sequences // chips),
        **mesh_habits(reading),
    }
    reading.assume(
        f"{batch.length} tokens in, {batch.target_length} out, {batch.sequences} examples; "
        "Mesh TensorFlow: Adafactor, fp32 scores through memory, one-hot masks"
    )
    reading.unstated.add("micro_batch")
    return True


def read_offload(case: Case, reading: Reading, layers: int) -> None:
    """Read how many layers keep their activations in the host's memory.

    With MaxText's policies, by name, those of all layers.
    """
    options = case.part("options")
    count = options.get("activation_offload_layers")
    if is_maxtext(case) and isinstance(options.get("activation_offload"), list):
        count = layers
    if isinstance(count, int) and count > 0:
        reading.training["offload_layers"] = min(count, layers)


def distributed(reading: Reading) -> bool:
    """Return whether optimizer states are spread over the replicas, as a case was read."""
    return bool(reading.training.get("optimizer", {}).get("distributed", True))


def lighter(reading: Reading) -> bool:
    """Ask for less memory where the case leaves it open, since it did run; False where it cannot.

    First a smaller micro-batch, then full recomputation.
    """
    micro = reading.training["micro_batch"]
    if "micro_batch" in reading.unstated and micro > 1 and micro % 2 == 0:
        reading.training["micro_batch"] = micro // 2
        note = "micro-batch not stated: the largest half, quarter ... that fits"
    elif "optimizer.distributed" in reading.unstated and not distributed(reading):
        reading.training["optimizer"]["distributed"] = True
        note = "all optimizer states do not fit on each replica: spread over them"
    elif "recompute" in reading.unstated and reading.training["recompute"] == "none":
        reading.training["recompute"] = "full"
        note = "recomputation not stated, and none does not fit: full"
    else:
        return False
    if note not in reading.assumed:
        reading.assume(note)
    return True
