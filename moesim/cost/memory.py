"""Bytes on one rank of a stage, and whether they fit."""

from dataclasses import dataclass, fields, replace

from moesim.cost.activations import ChunkActivations, chunk_activations
from moesim.cost.layout import FullSharding, Layout
from moesim.cost.optimizer import sharded_params, state_bytes
from moesim.cost.parameters import end_params, stage_params
from moesim.cost.pipeline import Chunk
from moesim.cost.software import Software
from moesim.cost.work import Job, Loads, blocks


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


def stage_activations(job: Job, stage: list[Chunk], loads: Loads) -> tuple[ChunkActivations, ...]:
    """Return what the chunks of a stage hold between forward and backward pass."""
    return tuple(
        chunk_activations(blocks(job, chunk, loads), job.recompute, job.offload_layers)
        for chunk in stage
    )


def with_activations(
    memory: StageMemory, kept: float, working: float, software: Software
) -> StageMemory:
    """Return `memory` with other activations, and what the allocator loses of them."""
    return replace(
        memory,
        activations=kept,
        working_set=working,
        fragmentation=software.fragmentation_fraction * (kept + working),
    )


def always_held(
    job: Job, stage: list[Chunk], loads: Loads, layout: Layout, software: Software
) -> StageMemory:
    """Return what a rank holds all through a step."""
    params = stage_params(job.architecture, stage, job.shard)
    rule = job.optimizer
    weight = rule.weight_bytes / layout.dense_shards
    return StageMemory(
        attention_weights=weight * (params.attention + params.router_and_norms),
        ffn_weights=weight * (params.dense_ffn + params.shared_experts),
        expert_weights=rule.weight_bytes / layout.expert_shards * params.routed_experts,
        embedding_weights=weight * params.embeddings,
        gradients=rule.gradient_bytes * sharded_params(params, layout),
        optimizer_states=state_bytes(params, rule, layout),
        unsharded=_unsharded_bytes(job, stage, loads, layout.fsdp),
        activations=0.0,
        working_set=0.0,
        fragmentation=0.0,
        reserved=software.reserved_memory_bytes,
    )


def _unsharded_bytes(
    job: Job, stage: list[Chunk], loads: Loads, sharding: FullSharding | None
) -> float:
    """Return what is whole beside the shards: the ends, and the layers at work.

    Two layers, the present and the next, as gathered, and the gradients of one in the same type;
    all layers where weights stay from forward to backward pass. Source: PyTorch `fully_shard`.
    """
    if sharding is None:
        return 0.0
    ends = sum(end_params(job.architecture, chunk, job.shard).total for chunk in stage)
    layers = [block.params.total for chunk in stage for block in blocks(job, chunk, loads)]
    whole = 2 * max(layers) if sharding.reshard else sum(layers)
    return job.optimizer.gathered_bytes * (2 * ends + whole + max(layers))
