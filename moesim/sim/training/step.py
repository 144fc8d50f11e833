"""One optimizer step: every pipeline stage follows its schedule as far as its inputs are there.

A pass starts when the pass before it on its stage has ended and its input has arrived, so times
follow from each other by maximum and sum alone: no clock is needed, and none is kept.
"""

from dataclasses import dataclass, field
from typing import Literal

from moesim.cost.times import PassCost, StageCost
from moesim.errors import SimulationError
from moesim.sim.kernel import Slice
from moesim.sim.training.schedules import Action, Order, Pair, passes


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """Everything a step needs to be simulated: orders and times, no bytes and no products."""

    orders: tuple[Order, ...]
    stages: tuple[StageCost, ...]
    overlap_reduce: bool
    overlap_gather: bool
    overlapped_rate: float
    """Rate of communication beside compute, as a share of its rate alone."""
    post_validation: bool = False
    """Whether a stage updates without a wait for the others; a step then takes as long as the stage
    that is at it longest, since every stage begins the next step when its own ends (Qi et al.,
    arXiv 2401.10241, section 4)."""
    load_s: float = 0.0
    """Time from the start of a step until the data of the next one is there."""
    route: Literal["loop", "two_ways", "v"] = "loop"
    """Which chunk follows which: loop: chunk c of stage s is number c p + s of the network;
    two_ways: chunk 1 is that of the stage opposite, for micro-batches that go back; v: chunk 1 is
    number 2 p - 1 - s."""
    durations: tuple[tuple[float, ...], ...] = ()
    """[stage][item of its order] seconds, where passes of micro-batches differ; empty: as in
    `stages`."""


@dataclass(slots=True)
class StageLog:
    """What a stage did in a step, in seconds."""

    busy_s: float = 0.0
    reduce_exposed_s: float = 0.0
    gather_exposed_s: float = 0.0
    update_s: float = 0.0
    begin_s: float = 0.0
    """When the input of the first pass was there; 0 where all stages begin a step together."""
    end_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StepResult:
    """How long the step took, what each stage did, and every slice of the timeline."""

    seconds: float
    stages: tuple[StageLog, ...]
    slices: tuple[Slice, ...]
    load_exposed_s: float = 0.0
    """What the next step waits for its data."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where a kind of pass of a chunk gets its input from, and where its result goes.

    A place is an input of a chunk of the network, F, B, or done for the turn at its end.
    """

    work: PassCost
    takes: int | None
    gives: int | None
    delay_s: float


@dataclass(slots=True)
class _Stage:
    """How far a stage has come."""

    number: int
    ways: dict[tuple[str, int], Way]
    final: frozenset[int]
    """The places of the items that make the gradients of a chunk final."""
    log: StageLog = field(default_factory=StageLog)
    done: int = 0
    """Items of its order that are done."""
    now_s: float = 0.0
    gathered_s: float = 0.0
    """When all weights are there."""
    reduce_from: list[float] = field(default_factory=list)
    """When the passes begin that make the gradients of a chunk final."""


_Input = tuple[int, int]
"""A place and a micro-batch."""


@dataclass(slots=True)
class _Step:
    """The state of a step."""

    plan: StepPlan
    stages: list[_Stage]
    arrived: dict[_Input, float] = field(default_factory=dict)
    waiting: dict[_Input, int] = field(default_factory=dict)
    """The stage that cannot go on without it."""
    slices: list[Slice] = field(default_factory=list)

    def record(self, track: str, name: str, start_s: float, end_s: float) -> None:
        """Record that `name` ran on `track`."""
        self.slices.append(Slice(track, name, start_s, end_s - start_s))


def simulate_step(plan: StepPlan) -> StepResult:
    """Return how one step runs; SimulationError if the schedule cannot be followed."""
    stages = [
        _Stage(number, ways(plan, number), _finals(order))
        for number, order in enumerate(plan.orders)
    ]
    step = _Step(plan, stages)
    ready = list(range(len(stages)))
    while ready:
        ready += _advance(step, stages[ready.pop()])
    if step.waiting:
        raise SimulationError(_stuck(step))
    seconds = _finish(step)
    if plan.load_s:
        step.record("stage 0 data", "load data of the next step", 0.0, plan.load_s)
    waited_s = max(0.0, plan.load_s - seconds)
    logs = tuple(stage.log for stage in stages)
    return StepResult(seconds + waited_s, logs, tuple(sorted(step.slices, key=_in_time)), waited_s)


def _in_time(piece: Slice) -> tuple[float, str]:
    return piece.start_s, piece.track


def ways(plan: StepPlan, stage: int) -> dict[tuple[str, int], Way]:
    """Return where the passes of a stage get their inputs, by kind and chunk."""
    times, stages = plan.stages[stage], len(plan.stages)
    depth = stages if plan.route == "two_ways" else stages * len(times.forward)
    found: dict[tuple[str, int], Way] = {}
    for chunk in range(len(times.forward)):
        place = chunk * stages + stage
        if plan.route != "loop":
            place = depth - 1 - stage if chunk else stage
        last = place == depth - 1
        turns = [
            plan.route == "v" and stage == stages - 1 and way != chunk for way in (True, False)
        ]
        ahead_s, back_s = (0.0 if turn or stages == 1 else times.send_s for turn in turns)
        takes, back = depth + place, depth + place - 1 if place else None
        kinds = {"F": times.forward, "B": times.backward, "I": times.inputs, "W": times.weights}
        ends = {
            "F": (place or None, 2 * depth - 1 if last else place + 1, 0.0 if last else ahead_s),
            "B": (takes, back, back_s),
            "I": (takes, back, back_s),
            "W": (None, None, 0.0),
        }
        for kind, costs in kinds.items():
            if costs:
                found[kind, chunk] = Way(costs[chunk], *ends[kind])
    return found


def _stuck(step: _Step) -> str:
    """Return who waits for what."""
    names = []
    for (place, micro_batch), number in sorted(step.waiting.items(), key=lambda one: one[1]):
        stage = step.stages[number]
        items = passes((step.plan.orders[number][stage.done],))
        names += [
            f"stage {number} waits for the input of {one}"
            for one in items
            if (stage.ways[one.kind, one.chunk].takes, one.micro_batch) == (place, micro_batch)
        ]
    latest_s = max(stage.now_s for stage in step.stages)
    return f"the simulation stopped at {latest_s:.6g} s: {'; '.join(names)}"


def _begin(step: _Step, stage: _Stage, input_s: float) -> float:
    """Gather the weights, beside the first pass or before it; return when that can start.

    A stage that does not wait for the others at the end of a step begins the next one late.
    """
    log, track = stage.log, f"stage {stage.number} data-parallel"
    seconds = step.plan.stages[stage.number].gather_s
    if step.plan.post_validation:
        log.begin_s = input_s
    if not seconds:
        return input_s
    if step.plan.overlap_gather:
        beside_s = seconds / step.plan.overlapped_rate
        stage.gathered_s = log.begin_s + beside_s
        step.slices.append(Slice(track, "gather weights", log.begin_s, beside_s))
        return input_s
    log.gather_exposed_s = seconds
    step.record(track, "gather weights", log.begin_s, log.begin_s + seconds)
    return max(input_s, log.begin_s + seconds)


def _advance(step: _Step, stage: _Stage) -> list[int]:
    """Let a stage go on until an input is missing; return the stages that can go on after that."""
    log, arrived, freed = stage.log, step.arrived, list[int]()
    times, track = step.plan.stages[stage.number], f"stage {stage.number} compute"
    order = step.plan.orders[stage.number]
    own = step.plan.durations[stage.number] if step.plan.durations else ()
    while stage.done < len(order):
        item = order[stage.done]
        both = (item.forward, item.backward) if isinstance(item, Pair) else (item,)
        found = [stage.ways[one.kind, one.chunk] for one in both]
        start_s = stage.now_s
        for one, way in zip(both, found, strict=True):
            if way.takes is not None:
                key = (way.takes, one.micro_batch)
                if key not in arrived:
                    step.waiting[key] = stage.number
                    return freed
                start_s = max(start_s, arrived[key])
        if stage.done == 0:
            start_s = _begin(step, stage, start_s)
        if own:
            seconds = own[stage.done]
        else:
            seconds = work_of(times, item).seconds if len(both) > 1 else found[0].work.seconds
        if stage.done in stage.final:
            stage.reduce_from.append(start_s)
        stage.now_s = start_s + seconds
        log.busy_s += seconds
        step.record(track, str(item), start_s, stage.now_s)
        if stage.done == 0 and stage.gathered_s > stage.now_s:
            log.gather_exposed_s = stage.gathered_s - stage.now_s
            stage.now_s += log.gather_exposed_s
        stage.done += 1
        for one, way in zip(both, found, strict=True):
            if way.gives is not None:
                key = (way.gives, one.micro_batch)
                arrived[key] = stage.now_s + way.delay_s
                if key in step.waiting:
                    freed.append(step.waiting.pop(key))
    return freed


def work_of(times: StageCost, action: Action | Pair) -> PassCost:
    """Return the cost of a pass, or of a pair of passes."""
    if isinstance(action, Pair):
        return times.joint[action.forward.chunk][action.backward.chunk]
    kinds = {"F": times.forward, "B": times.backward, "I": times.inputs, "W": times.weights}
    return kinds[action.kind][action.chunk]


_FINAL = {"B", "W"}
"""Passes that make gradients of weights."""


def _finals(order: Order) -> frozenset[int]:
    last = {
        one.chunk: number
        for number, item in enumerate(order)
        for one in passes((item,))
        if one.kind in _FINAL
    }
    return frozenset(last.values())


def _finish(step: _Step) -> float:
    """Reduce gradients, wait for the norm of all stages, update the weights; return the end.

    Where the first and the last stage hold the same embedding, its gradients are summed over both
    before, when both have reduced theirs.
    """
    plan = step.plan
    for stage in step.stages:
        if plan.stages[stage.number].reduce_s:
            log, ended_s = stage.log, stage.now_s
            log.reduce_exposed_s, began_s = exposed_reduction(
                plan, stage.number, stage.reduce_from, ended_s
            )
            stage.now_s += log.reduce_exposed_s
            step.record(
                f"stage {stage.number} data-parallel", "reduce gradients", began_s, stage.now_s
            )
    _sum_embedding(step)
    norm_s = max(stage.now_s for stage in step.stages)
    for stage in step.stages:
        log, start_s = stage.log, stage.now_s if plan.post_validation else norm_s
        log.update_s = plan.stages[stage.number].update_s
        log.end_s = start_s + log.update_s
        step.record(f"stage {stage.number} compute", "optimizer", start_s, log.end_s)
    return max(stage.log.end_s - stage.log.begin_s for stage in step.stages)


def _sum_embedding(step: _Step) -> None:
    """Sum the gradients of an embedding that both ends hold, when both have reduced theirs."""
    ends = [stage for stage in step.stages if step.plan.stages[stage.number].embedding_s]
    began_s = max((stage.now_s for stage in ends), default=0.0)
    for stage in ends:
        embedding_s = step.plan.stages[stage.number].embedding_s
        stage.log.reduce_exposed_s += embedding_s
        stage.now_s = began_s + embedding_s
        step.record(f"stage {stage.number} data-parallel", "reduce embedding", began_s, stage.now_s)


def exposed_reduction(
    plan: StepPlan, stage: int, from_s: list[float], now_s: float
) -> tuple[float, float]:
    """Return how long the reduction goes on after the last backward pass, and when it began.

    Each chunk's share can be reduced from the start of the backward pass that makes its gradients
    final, one after the other, beside compute at a reduced rate. The gradients of the first layer,
    a share of 1 / layers, are final only when the last backward pass ends.
    """
    times = plan.stages[stage]
    if not plan.overlap_reduce:
        return times.reduce_s, now_s
    share_s = times.reduce_s / len(from_s)
    free_s, left_s = min(from_s), 0.0
    for start_s in sorted(from_s):
        free_s = max(free_s, start_s)
        hidden_s = min(share_s, max(0.0, now_s - free_s) * plan.overlapped_rate)
        free_s += hidden_s / plan.overlapped_rate
        left_s += share_s - hidden_s
    tail_s = times.reduce_s / max(1, sum(one.layers for one in times.backward))
    return max(tail_s, left_s), min(from_s)
