"""The least time of a step and the memory of a stage from counts of passes, nothing simulated."""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from moesim.cost.optimizer import sharded_params, state_bytes
from moesim.cost.parameters import StageParams, add, end_params
from moesim.cost.pipeline import Chunk
from moesim.cost.pricing import Machine
from moesim.cost.stage import between_steps_s, clipped_update_s, embedding_s, send_s
from moesim.sim.training.registry import ROUTES
from moesim.sim.training.walk import Kind, Walk, walk
from moesim.spec.schedule_names import FOLDED
from moesim.study.cut import ChunkCost, Cut


@dataclass(frozen=True, slots=True)
class Between:
    """What a stage does once per step."""

    params: StageParams
    reduce_s: float
    gather_s: float
    update_s: float
    embedding_s: float


@dataclass(slots=True)
class Pipeline:
    """A cut model on the stages of a pipeline."""

    cut: Cut
    on: Machine
    micro_batches: int
    places: list[ChunkCost]
    """Chunks in the order of the network."""
    slowness: tuple[float, ...]
    """How many times as long compute takes on the slowest device of each stage."""

    @property
    def is_two_ways(self) -> bool:
        """Whether micro-batches enter from both ends."""
        return self.on.layout.schedule == "dualpipe"

    def numbers(self, stage: int) -> list[int]:
        """Return the places of the chunks of a stage."""
        layout, last = self.on.layout, len(self.places) - 1
        if layout.schedule in ROUTES:
            return [stage, last - stage]
        return [chunk * layout.pp + stage for chunk in range(layout.vpp)]

    def chunks(self, stage: int) -> list[ChunkCost]:
        """Return the chunks of a stage."""
        return [self.places[number] for number in self.numbers(stage)]

    def stage(self, place: int, chunk: int) -> int:
        """Return the stage at which micro-batches of a chunk's way pass a place of the network."""
        stages, last = self.on.layout.pp, len(self.places) - 1
        if self.is_two_ways and chunk:
            return last - place
        if self.on.layout.schedule in FOLDED and place >= stages:
            return last - place
        return place % stages

    def walk(self, stage: int) -> Walk:
        """Return what a stage does."""
        layout = self.on.layout
        pairs = self.cut.run.job.exchange_overlap == "batch"
        return walk(layout.schedule, stage, layout.pp, (self.micro_batches, layout.vpp), pairs)


def pipeline(cut: Cut, on: Machine, micro_batches: int, slowness: tuple[float, ...]) -> Pipeline:
    """Return `cut` on the stages of a layout."""
    count = on.layout.pp * on.layout.vpp
    ends = list(accumulate(cut.sizes_of(count)))
    places = [
        cut.chunk(start, end, (number, count))
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]
    return Pipeline(cut, on, micro_batches, places, slowness)


def step_bound_s(line: Pipeline, between: list[Between]) -> float:
    """Return seconds that no step can be shorter than.

    For every stage: the way of the first micro-batch to it, its own passes one after the other, and
    from there either the reduction of its gradients, or the way of the last micro-batch back to the
    end it came from and the reduction there; then the update. 1F1B and interleaved with equal
    stages: exactly the closed form (m v + p - 1)(f + b) of a chunk (arXiv 2104.04473, section 2.2).
    Where stages update without a wait for the others the way to a stage is no part of its step.
    """
    stages = range(line.on.layout.pp)
    alone = line.cut.run.scenario.training.optimizer.post_validation
    ends = [0.0] * len(stages)
    for stage in stages:
        end_s, entry_s, entry = _passes_s(line, stage, between)
        own_s = _own_begin_s(line, stage, between) + _count_s(line, stage, line.walk(stage).counts)
        ends[stage] = max(ends[stage], own_s if alone else end_s)
        ends[entry] = max(ends[entry], entry_s)
    done = [
        end_s + _exposed_s(line, stage, between[stage].reduce_s) for stage, end_s in enumerate(ends)
    ]
    updates = [one.update_s * line.slowness[stage] for stage, one in enumerate(between)]
    if alone:
        return max(done[stage] + between[stage].embedding_s + updates[stage] for stage in stages)
    at_ends = [done[stage] for stage in stages if between[stage].embedding_s]
    summed = max(at_ends, default=0.0) + max(one.embedding_s for one in between)
    return max(*done, summed) + max(updates)


def _passes_s(line: Pipeline, stage: int, between: list[Between]) -> tuple[float, float, int]:
    """Return when a stage can have done its passes, and when the stage of entry its last one."""
    own, numbers = line.walk(stage), line.numbers(stage)
    busy_s, late_s = (_count_s(line, stage, counts) for counts in (own.counts, own.late))
    way_s, begin_s = _way_s(line, numbers, own.first, "F"), _own_begin_s(line, stage, between)
    if not line.cut.run.scenario.training.overlap.param_gather:
        way_s += between[_entry(line, own.first)].gather_s
        if line.cut.run.scenario.training.optimizer.post_validation:
            way_s, begin_s = way_s + begin_s, 0.0
    end_s = max(begin_s, way_s) + busy_s
    back_s = _way_s(line, numbers, own.last, "B")
    return end_s, end_s - late_s + back_s, _entry(line, own.last)


def _own_begin_s(line: Pipeline, stage: int, between: list[Between]) -> float:
    """Return what weights still to be gathered keep a stage from its passes."""
    gather_s = between[stage].gather_s
    if not line.cut.run.scenario.training.overlap.param_gather:
        return gather_s
    first = line.chunks(stage)[line.walk(stage).first].seconds["F"].on(line.slowness[stage])
    return max(0.0, gather_s / line.on.software.overlapped_fraction - first)


def _entry(line: Pipeline, chunk: int) -> int:
    """Return the stage where the micro-batches of a chunk enter the network."""
    return line.on.layout.pp - 1 if line.is_two_ways and chunk else 0


def _way_s(line: Pipeline, numbers: list[int], chunk: int, kind: str) -> float:
    """Return the seconds of a micro-batch from the input of the network to a chunk, or back."""
    send, layout, place = send_s(line.cut.run.job, line.on), line.on.layout, numbers[chunk]
    turn = layout.schedule in FOLDED and place >= layout.pp
    return (place - turn) * send + sum(
        _least_s(one, kind, line.slowness[line.stage(number, chunk)])
        for number, one in enumerate(line.places[:place])
    )


def _least_s(one: ChunkCost, kind: str, slowness: float) -> float:
    found_s = one.seconds[kind].on(slowness)
    if kind == "F" or "I" not in one.seconds:
        return found_s
    return min(found_s, one.seconds["I"].on(slowness))


def _count_s(line: Pipeline, stage: int, counts: dict[Kind, float]) -> float:
    chunks, slowness, total = line.chunks(stage), line.slowness[stage], 0.0
    for (kind, chunk), times in counts.items():
        if isinstance(kind, int):
            total += times * line.cut.pair_s(chunks[kind], chunks[chunk], slowness)
        else:
            total += times * chunks[chunk].seconds[kind].on(slowness)
    return total


def _exposed_s(line: Pipeline, stage: int, reduce_s: float) -> float:
    """Return what of a reduction is left after the last pass at least.

    That of the last layer; and of the share of the chunk whose gradients the last pass makes final,
    what does not hide beside this pass.
    """
    if not line.cut.run.scenario.training.overlap.grad_reduce:
        return reduce_s
    chunks = line.chunks(stage)
    beside_s = _count_s(line, stage, {line.walk(stage).final: 1.0})
    left_s = reduce_s / len(chunks) - line.on.software.overlapped_fraction * beside_s
    return max(left_s, reduce_s / max(1, sum(one.layers for one in chunks)))


def between_steps(line: Pipeline) -> list[Between]:
    """Return what every stage does once per step; equal stages are priced once."""
    known: dict[tuple[int, ...], Between] = {}
    found = []
    for stage in range(line.on.layout.pp):
        chunks = line.chunks(stage)
        key = tuple(map(id, chunks))
        if key not in known:
            known[key] = _stage_between(line, chunks)
        found.append(known[key])
    return found


def _stage_between(line: Pipeline, chunks: list[ChunkCost]) -> Between:
    job, on = line.cut.run.job, line.on
    ends = [Chunk(layers=(), has_embedding=one.ends[0], has_logits=one.ends[1]) for one in chunks]
    table = any(one.has_embedding for one in ends)
    held = [end_params(job.architecture, one, job.shard, has_table=table) for one in ends]
    params = add([*(one.params for one in chunks), *held])
    return Between(
        params,
        *between_steps_s(params, job.optimizer, on),
        clipped_update_s(params, job, on),
        embedding_s(job, ends, on),
    )


def peak_bytes(line: Pipeline, between: list[Between]) -> float:
    """Return the bytes on the fullest rank, as a simulated run counts them under even loads."""
    return max(_stage_bytes(line, stage, one.params) for stage, one in enumerate(between))


def _stage_bytes(line: Pipeline, stage: int, params: StageParams) -> float:
    chunks, own, software = line.chunks(stage), line.walk(stage), line.on.software
    kept = np.zeros(1)
    for held, one in zip(own.held.T, chunks, strict=True):
        kept = kept + np.outer(held, one.kept_bytes)
    working = (own.at_work * [one.working_bytes for one in chunks]).max(axis=1)
    return (
        _weights_bytes(line, params)
        + (1 + software.fragmentation_fraction) * float((kept.max(axis=1) + working).max())
        + software.reserved_memory_bytes
    )


def _weights_bytes(line: Pipeline, params: StageParams) -> float:
    rule, layout = line.cut.run.job.optimizer, line.on.layout
    return (
        rule.weight_bytes * params.total
        + rule.gradient_bytes * sharded_params(params, layout)
        + state_bytes(params, rule, layout)
    )
