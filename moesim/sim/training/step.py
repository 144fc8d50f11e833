"""One optimizer step: every pipeline stage is a process that follows its schedule."""

from dataclasses import dataclass, field
from typing import Literal

import simpy

from moesim.cost.times import PassCost, StageCost
from moesim.sim.kernel import Clock, Slice, Steps
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
    route: Literal["loop", "two_ways", "v"] = "loop"
    """Which chunk follows which: loop: chunk c of stage s is number c p + s of the network;
    two_ways: chunk 1 is that of the stage opposite, for micro-batches that go back; v: chunk 1 is
    number 2 p - 1 - s."""


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


@dataclass(slots=True)
class _Step:
    """The state that the stage processes of one step share."""

    plan: StepPlan
    clock: Clock = field(default_factory=Clock)
    arrivals: dict[tuple[str, int, int], simpy.Event] = field(default_factory=dict)
    logs: list[StageLog] = field(default_factory=list)
    reduced: list[simpy.Event] = field(default_factory=list)
    at_ends: dict[int, simpy.Event] = field(default_factory=dict)
    """When each stage that holds the embedding has its gradients."""

    @property
    def depth(self) -> int:
        stages = len(self.plan.stages)
        return (
            stages if self.plan.route == "two_ways" else stages * len(self.plan.stages[0].forward)
        )

    def position(self, stage: int, chunk: int) -> int:
        """Return how many chunks of the network lie before this one."""
        stages = len(self.plan.stages)
        if self.plan.route != "loop":
            return self.depth - 1 - stage if chunk else stage
        return chunk * stages + stage

    def arrival(self, kind: str, micro_batch: int, position: int) -> simpy.Event:
        """Return the event that the input of a pass at virtual stage `position` is there."""
        key = (kind, micro_batch, position)
        if key not in self.arrivals:
            self.arrivals[key] = self.clock.event()
        return self.arrivals[key]


def simulate_step(plan: StepPlan) -> StepResult:
    """Return how one step runs; SimulationError if the schedule cannot be followed."""
    step = _Step(plan)
    step.logs = [StageLog() for _ in plan.stages]
    step.reduced = [step.clock.event() for _ in plan.stages]
    ends = [stage for stage, times in enumerate(plan.stages) if times.embedding_s]
    step.at_ends = {stage: step.clock.event() for stage in ends}
    for stage in range(len(plan.stages)):
        step.clock.start(f"stage {stage}", _stage(step, stage))
    seconds = step.clock.run()
    if plan.post_validation:
        seconds = max(log.end_s - log.begin_s for log in step.logs)
    return StepResult(seconds, tuple(step.logs), tuple(step.clock.slices))


def _stage(step: _Step, stage: int) -> Steps:
    clock, plan, log = step.clock, step.plan, step.logs[stage]
    times = plan.stages[stage]
    if plan.post_validation:
        yield from _receive(step, stage, passes(plan.orders[stage][:1])[0])
        log.begin_s = clock.now_s
    gathered_s = times.gather_s
    if gathered_s and not plan.overlap_gather:
        yield clock.after(gathered_s)
        clock.record(f"stage {stage} data-parallel", "gather weights", log.begin_s)
        log.gather_exposed_s = gathered_s
    elif gathered_s:
        gathered_s /= plan.overlapped_rate
        clock.slices.append(
            Slice(f"stage {stage} data-parallel", "gather weights", log.begin_s, gathered_s)
        )
    reduce_from: list[float] = []
    for number, action in enumerate(plan.orders[stage]):
        for one in passes((action,)):
            yield from _receive(step, stage, one)
        start_s = clock.now_s
        work = work_of(times, action)
        if _is_last_backward(plan, stage, number, action):
            reduce_from.append(start_s)
        yield clock.after(work.seconds)
        log.busy_s += work.seconds
        clock.record(f"stage {stage} compute", str(action), start_s)
        if number == 0 and plan.overlap_gather and log.begin_s + gathered_s > clock.now_s:
            log.gather_exposed_s = log.begin_s + gathered_s - clock.now_s
            yield clock.after(log.gather_exposed_s)
        for one in passes((action,)):
            _send(step, stage, one)
    yield from _finish(step, stage, reduce_from)


def work_of(times: StageCost, action: Action | Pair) -> PassCost:
    """Return the cost of a pass, or of a pair of passes."""
    if isinstance(action, Pair):
        return times.joint[action.forward.chunk][action.backward.chunk]
    kinds = {"F": times.forward, "B": times.backward, "I": times.inputs, "W": times.weights}
    return kinds[action.kind][action.chunk]


_FINAL = {"B", "W"}
"""Passes that make gradients of weights."""


def _is_last_backward(plan: StepPlan, stage: int, number: int, item: Action | Pair) -> bool:
    """Tell whether this pass makes the gradients of a chunk final."""
    action = passes((item,))[-1]
    if action.kind not in _FINAL:
        return False
    order, chunks = plan.orders[stage], len(plan.stages[stage].backward)
    if len(order) - number > chunks * len(plan.stages):
        return False  # the last pass of a chunk is among the last ones: spare the search
    return not any(
        later.kind in _FINAL and later.chunk == action.chunk
        for later in passes(order[number + 1 :])
    )


def _receive(step: _Step, stage: int, action: Action) -> Steps:
    position = step.position(stage, action.chunk)
    if action.kind == "W" or (action.kind == "F" and position == 0):
        return
    name = f"stage {stage}"
    step.clock.waiting[name] = f"the input of {action}"
    if action.kind != "F" and position == step.depth - 1:
        yield step.arrival("done", action.micro_batch, position)
    else:
        yield step.arrival("F" if action.kind == "F" else "B", action.micro_batch, position)
    step.clock.waiting[name] = f"the end of {action}"


def _send(step: _Step, stage: int, action: Action) -> None:
    stages = len(step.plan.stages)
    position = step.position(stage, action.chunk)
    turns = step.plan.route == "v" and stage == stages - 1 and (action.kind == "F") != action.chunk
    delay_s = step.plan.stages[stage].send_s if stages > 1 and not turns else 0.0
    if action.kind == "F" and position == step.depth - 1:
        step.arrival("done", action.micro_batch, position).succeed()
    elif action.kind == "F":
        step.clock.trigger_after(step.arrival("F", action.micro_batch, position + 1), delay_s)
    elif action.kind != "W" and position > 0:
        step.clock.trigger_after(step.arrival("B", action.micro_batch, position - 1), delay_s)


def _finish(step: _Step, stage: int, reduce_from: list[float]) -> Steps:
    """Reduce gradients, wait for the norm of all stages, update the weights.

    Where the first and the last stage hold the same embedding, its gradients are summed over both
    before, when both have reduced theirs.
    """
    clock, plan, log = step.clock, step.plan, step.logs[stage]
    times = plan.stages[stage]
    if times.reduce_s:
        log.reduce_exposed_s, began_s = _exposed_reduction(plan, stage, reduce_from, clock.now_s)
        yield clock.after(log.reduce_exposed_s)
        clock.record(f"stage {stage} data-parallel", "reduce gradients", began_s)
    if times.embedding_s:
        step.at_ends[stage].succeed()
        clock.waiting[f"stage {stage}"] = "the embedding's gradients of the other end"
        yield clock.environment.all_of(list(step.at_ends.values()))
        began_s = clock.now_s
        yield clock.after(times.embedding_s)
        log.reduce_exposed_s += times.embedding_s
        clock.record(f"stage {stage} data-parallel", "reduce embedding", began_s)
    step.reduced[stage].succeed()
    if not plan.post_validation:
        clock.waiting[f"stage {stage}"] = "the gradient norm of all stages"
        yield clock.environment.all_of(step.reduced)
    start_s = clock.now_s
    yield clock.after(times.update_s)
    clock.record(f"stage {stage} compute", "optimizer", start_s)
    log.update_s, log.end_s = times.update_s, clock.now_s


def _exposed_reduction(
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
