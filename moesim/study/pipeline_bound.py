"""The least time of a step and the memory of a stage from counts of passes, nothing simulated."""

from dataclasses import dataclass
from itertools import accumulate

from moesim.cost.optimizer import sharded_params, state_bytes
from moesim.cost.parameters import StageParams, add
from moesim.cost.pipeline import Chunk
from moesim.cost.pricing import Machine
from moesim.cost.stage import between_steps_s, clipped_update_s, embedding_s, send_s
from moesim.sim.training.registry import ROUTES
from moesim.sim.training.walk import Kind, Walk, walk
from moesim.study.cut import ChunkCost, Cut


@dataclass(frozen=True, slots=True)
class Between:
    """What a stage does once per step."""

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

    def walk(self, stage: int) -> Walk:
        """Return what a stage does."""
        layout = self.on.layout
        pairs = self.cut.run.job.exchange_overlap == "batch"
        return walk(layout.schedule, stage, layout.pp, (self.micro_batches, layout.vpp), pairs)


def pipeline(cut: Cut, on: Machine, micro_batches: int) -> Pipeline:
    """Return `cut` on the stages of a layout."""
    count = on.layout.pp * on.layout.vpp
    ends = list(accumulate(cut.sizes_of(count)))
    places = [
        cut.chunk(start, end, (number, count))
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False))
    ]
    return Pipeline(cut, on, micro_batches, places)


def step_bound_s(line: Pipeline) -> float:
    """Return seconds that no step can be shorter than.

    For every stage: the way of the first micro-batch to it, its own passes one after the other, and
    from there either the reduction of its gradients, or the way of the last micro-batch back to the
    end it came from and the reduction there; then the update. 1F1B and interleaved with equal
    stages: exactly the closed form (m v + p - 1)(f + b) of a chunk (arXiv 2104.04473, section 2.2).
    """
    stages = range(line.on.layout.pp)
    between = _between(line)
    ends = [0.0] * len(stages)
    for stage in stages:
        end_s, entry_s, entry = _passes_s(line, stage, between)
        ends[stage] = max(ends[stage], end_s)
        ends[entry] = max(ends[entry], entry_s)
    done = [
        end_s + _exposed_s(line, stage, between[stage].reduce_s) for stage, end_s in enumerate(ends)
    ]
    at_ends = [done[stage] for stage in stages if between[stage].embedding_s]
    summed = max(at_ends, default=0.0) + max(one.embedding_s for one in between)
    return max(*done, summed) + max(one.update_s for one in between)


def _passes_s(line: Pipeline, stage: int, between: list[Between]) -> tuple[float, float, int]:
    """Return when a stage can have done its passes, and when the stage of entry its last one."""
    own, numbers = line.walk(stage), line.numbers(stage)
    busy_s, late_s = (_count_s(line, stage, counts) for counts in (own.counts, own.late))
    overlap = line.cut.run.scenario.training.overlap
    first = line.chunks(stage)[own.first].seconds["F"]
    if overlap.param_gather:
        whole_s = between[stage].gather_s / line.on.software.overlapped_fraction
        begin_s = max(_way_s(line, numbers[own.first], "F"), whole_s - first)
    else:
        enters = between[_entry(line, own.first)].gather_s
        begin_s = max(between[stage].gather_s, enters + _way_s(line, numbers[own.first], "F"))
    end_s = begin_s + busy_s
    back_s = _way_s(line, numbers[own.last], "B")
    return end_s, end_s - late_s + back_s, _entry(line, own.last)


def _entry(line: Pipeline, chunk: int) -> int:
    """Return the stage where the micro-batches of a chunk enter the network."""
    return line.on.layout.pp - 1 if line.is_two_ways and chunk else 0


def _way_s(line: Pipeline, place: int, kind: str) -> float:
    """Return the seconds of a micro-batch from the input of the network to `place`, or back."""
    send, layout = send_s(line.cut.run.job, line.on), line.on.layout
    turn = layout.schedule == "dualpipe_v" and place >= layout.pp
    sends = (place - turn) * send
    return sends + sum(_least_s(one, kind) for one in line.places[:place])


def _least_s(one: ChunkCost, kind: str) -> float:
    if kind == "F":
        return one.seconds["F"]
    return min(one.seconds["B"], one.seconds.get("I", one.seconds["B"]))


def _count_s(line: Pipeline, stage: int, counts: dict[Kind, float]) -> float:
    chunks, total = line.chunks(stage), 0.0
    for (kind, chunk), times in counts.items():
        if isinstance(kind, int):
            total += times * line.cut.pair_s(chunks[kind], chunks[chunk])
        else:
            total += times * chunks[chunk].seconds[kind]
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


def _between(line: Pipeline) -> list[Between]:
    """Return what every stage does once per step; equal stages are priced once."""
    job, on = line.cut.run.job, line.on
    known: dict[tuple[int, ...], Between] = {}
    found = []
    for stage in range(on.layout.pp):
        chunks = line.chunks(stage)
        key = tuple(map(id, chunks))
        if key not in known:
            params = add([one.params for one in chunks])
            ends = [
                Chunk(layers=(), has_embedding=one.ends[0], has_logits=one.ends[1])
                for one in chunks
            ]
            known[key] = Between(
                *between_steps_s(params, job.optimizer, on),
                clipped_update_s(params, job, on),
                embedding_s(job, ends, on),
            )
        found.append(known[key])
    return found


def peak_bytes(line: Pipeline) -> float:
    """Return the bytes on the fullest rank, as a simulated run counts them under even loads."""
    return max(_stage_bytes(line, stage) for stage in range(line.on.layout.pp))


def _stage_bytes(line: Pipeline, stage: int) -> float:
    chunks, held = line.chunks(stage), line.walk(stage).in_flight
    software = line.on.software
    kept = sum(count * chunks[chunk].kept_bytes for chunk, count in held.items())
    working = max(one.working_bytes for one in chunks)
    params = add([one.params for one in chunks])
    return (
        _weights_bytes(line, params)
        + (1 + software.fragmentation_fraction) * (kept + working)
        + software.reserved_memory_bytes
    )


def _weights_bytes(line: Pipeline, params: StageParams) -> float:
    rule, layout = line.cut.run.job.optimizer, line.on.layout
    return (
        rule.weight_bytes * params.total
        + rule.gradient_bytes * sharded_params(params, layout)
        + state_bytes(params, rule, layout)
    )
