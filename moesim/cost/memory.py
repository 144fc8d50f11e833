"""Bytes on one rank of a stage, and whether they fit."""

from dataclasses import dataclass, fields

import numpy as np

from moesim.cost.layout import FullSharding, Layout
from moesim.cost.offload import on_device
from moesim.cost.optimizer import sharded_params, state_bytes
from moesim.cost.parameters import end_params, stage_params
from moesim.cost.pipeline import Chunk
from moesim.cost.recomputation import kept_bytes, routed_kept_bytes
from moesim.cost.software import Software
from moesim.cost.work import Block, Job, Loads, blocks
from moesim.model.operators import Gemm, written_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """Peak bytes on one rank of a stage, by what they hold."""

    attention_weights: float
    ffn_weights: float
    expert_weights: float
    embedding_weights: float
    gradients: float
    optimizer_states: float
    unsharded: float = 0.0
    """Weights and gradients that full sharding gathers for the layers at work."""
    activations: float
    working_set: float
    """What one layer needs while it runs, beyond what is kept."""
    fragmentation: float
    reserved: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(size for _, size in self.parts())

    def parts(self) -> list[tuple[str, float]]:
        """Return what is held, in words, and its bytes; parts of no size are left out."""
        named = [(f.name.replace("_", " "), float(getattr(self, f.name))) for f in fields(self)]
        return [(name, size) for name, size in named if size]


def stage_memory(
    job: Job, stage: list[Chunk], loads: Loads, in_flight: dict[int, int],
    layout: Layout, software: Software,
) -> StageMemory:  # fmt: skip
    """Return the peak of one rank; `in_flight` is how many micro-batches each chunk holds."""
    params = stage_params(job.architecture, stage, job.shard)
    rule = job.optimizer
    work = [blocks(job, chunk, loads) for chunk in stage]
    held = [
        one
        for chunk, count in in_flight.items()
        for one in on_device(work[chunk], job.offload_layers, count)
    ]
    kept = _kept_by_fullest(held, job.recompute)
    working = max(
        (working_set_bytes(block, job.recompute) for found in work for block in found), default=0.0
    )
    weight = rule.weight_bytes / layout.dense_shards
    return StageMemory(
        attention_weights=weight * (params.attention + params.router_and_norms),
        ffn_weights=weight * (params.dense_ffn + params.shared_experts),
        expert_weights=rule.weight_bytes / layout.expert_shards * params.routed_experts,
        embedding_weights=weight * params.embeddings,
        gradients=rule.gradient_bytes * sharded_params(params, layout),
        optimizer_states=state_bytes(params, rule, layout),
        unsharded=_unsharded_bytes(job, stage, work, layout.fsdp),
        activations=kept,
        working_set=working,
        fragmentation=software.fragmentation_fraction * (kept + working),
        reserved=software.reserved_memory_bytes,
    )


def _unsharded_bytes(
    job: Job, stage: list[Chunk], work: list[list[Block]], sharding: FullSharding | None
) -> float:
    """Return what is whole beside the shards: the ends, and the layers at work.

    Two layers, the present and the next, as gathered, and the gradients of one in the same type;
    all layers where weights stay from forward to backward pass. Source: PyTorch `fully_shard`.
    """
    if sharding is None:
        return 0.0
    ends = sum(end_params(job.architecture, chunk, job.shard).total for chunk in stage)
    layers = [block.params.total for found in work for block in found]
    whole = 2 * max(layers) if sharding.reshard else sum(layers)
    return job.optimizer.gathered_bytes * (2 * ends + whole + max(layers))


def _kept_by_fullest(held: list[tuple[Block, int]], recompute: tuple[str, ...]) -> float:
    """Return what the rank keeps that keeps most of all blocks, so many micro-batches of each.

    Blocks are those of the fullest rank of their layer; a rank with fewer rows keeps in proportion.
    """
    even, routed = 0.0, np.zeros(1)
    for block, count in held:
        kept = count * block_kept_bytes(block, recompute)
        skewed = 0.0
        rows = np.asarray(block.rank_rows, dtype=np.float64)
        if rows.any():
            skewed = count * routed_kept_bytes(block.operators, recompute)
            routed = routed + skewed * rows / rows.max()
        even += kept - skewed
    return even + float(routed.max())


def block_kept_bytes(block: Block, recompute: tuple[str, ...]) -> float:
    """Return what a block keeps of one micro-batch for its backward pass."""
    return kept_bytes(block.operators, recompute if block.is_layer else ())


def working_set_bytes(block: Block, recompute: tuple[str, ...]) -> float:
    """Return what a block needs while it runs, beyond what is kept.

    A layer: what recomputing it brings back. The end of the network: the logits and their gradient;
    a fused loss writes the gradient over the logits, which are kept already.
    """
    if not block.is_layer:
        if any(op.name == "cross_entropy" for op in block.operators):
            return 0.0
        logits = [op for op in block.operators if isinstance(op, Gemm)]
        return sum(2 * written_bytes(op) for op in logits)
    return kept_bytes(block.operators, ()) - kept_bytes(block.operators, recompute)
