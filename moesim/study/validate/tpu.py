"""What trainers on TPUs do where a case does not say: pipelines, experts and attention.

Mesh TensorFlow (mesh_tensorflow 0.1.21): scores in fp32 (transformer/attention.py, float32_logits:
True), tokens sorted by one-hot masks in groups of 1,024, int(1024 * factor / experts) slots with 4
at least and top-k not counted (transformer/moe.py, MoE1D: group_size, min_expert_capacity).

MaxText: a pipeline is circular, each stage holds one layer at a time and micro-batches come round
until all layers are done (configs/base.yml, num_layers_per_pipeline_stage: 1; from memory,
unchecked). Its FLOP count every pair of tokens, masked ones too, and no dropped token: the 17 rows
of AI-Hypercomputer/tpu-recipes @c8cfe2f6 with both rates, 57.9 GFLOP a token of Llama-3.1-8B.
"""

from dataclasses import replace
from typing import Any

from moesim.model.architecture import Architecture, GroupedQueryAttention, Run
from moesim.model.flop import training_flop_per_token
from moesim.spec.cases import Case
from moesim.study.validate.maxtext import is_maxtext, is_tpu
from moesim.study.validate.options import Reading

MESH_GROUP_TOKENS = 1024


def software_of(case: Case, otherwise: str) -> str:
    """Return the software profile for a case's trainer; `otherwise` where it is none of TPUs."""
    if is_maxtext(case):
        return "maxtext"
    return "mesh-tensorflow" if is_tpu(case) else otherwise


def circular_pipeline(case: Case, reading: Reading, layers: int) -> None:
    """Read MaxText's pipeline as an interleaved one with one layer per chunk."""
    stages = reading.parallel.get("pp", 1)
    if not is_maxtext(case) or stages == 1 or "vpp" in reading.parallel or layers % stages:
        return
    if layers > stages:
        reading.parallel["vpp"] = layers // stages
        reading.assume("circular pipeline, one layer of a stage at a time: MaxText's default")


def mesh_habits(reading: Reading) -> dict[str, Any]:
    """Return what Mesh TensorFlow does in a training step; changes how experts get slots."""
    found: dict[str, Any] = {
        "attention_kernel": "unfused_fp32",
        "optimizer": {"kind": "adafactor", "distributed": False},
    }
    capacity = reading.routing.get("capacity")
    if capacity is not None:
        capacity |= {"formula": "switch", "group_tokens": MESH_GROUP_TOKENS}
        found["permutation"] = "one_hot"
    return found


def counted_flop_per_token(architecture: Architecture, length: int) -> float:
    """Return the FLOP per token that MaxText's TFLOP/s and MFU count."""
    decoder = tuple(_seeing_all(run) for run in architecture.decoder)
    return training_flop_per_token(replace(architecture, decoder=decoder), length)


def _seeing_all(run: Run) -> Run:
    attention = run.layer.attention
    if not isinstance(attention, GroupedQueryAttention):
        return run
    return replace(run, layer=replace(run.layer, attention=replace(attention, causal=False)))
