"""The step of a pipeline on simpy, a process per stage and an event per transfer: the reference.

What moesim simulated steps with before times were taken from each other directly.
"""

from dataclasses import dataclass, field

import simpy

from moesim.sim.kernel import Clock, Slice, Steps
from moesim.sim.training.schedules import Action, Pair, passes
from moesim.sim.training.step import (
    StageLog,
    StepPlan,
    StepResult,
    exposed_reduction,
    work_of,
)


@dataclass(slots=True)
class Recorder(Clock):
    """A clock that records what ran."""

    slices: list[Slice] = field(default_factory=list)

    def trigger_after(self, event: simpy.Event, delay_s: float) -> None:
        """Trigger `event` when `delay_s` seconds have passed."""
        if delay_s == 0.0:
            event.succeed()
            return
        timeout = self.environment.timeout(delay_s)
        assert timeout.callbacks is not None
        timeout.callbacks.append(event.trigger)

    def record(self, track: str, name: str, start_s: float) -> None:
        """Record that `name` ran on `track` from `start_s` until now."""
        self.slices.append(Slice(track, name, start_s, self.now_s - start_s))


@dataclass(slots=True)
class _Step:
    """The state that the stage processes of one step share."""

    plan: StepPlan
    clock: Recorder = field(default_factory=Recorder)
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


def stepped(plan: StepPlan) -> StepResult:
    """Return how one step runs, event by event."""
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
        own = plan.durations[stage][number] if plan.durations else None
        seconds = work_of(times, action).seconds if own is None else own
        if _is_last_backward(plan, stage, number, action):
            reduce_from.append(start_s)
        yield clock.after(seconds)
        log.busy_s += seconds
        clock.record(f"stage {stage} compute", str(action), start_s)
        if number == 0 and plan.overlap_gather and log.begin_s + gathered_s > clock.now_s:
            log.gather_exposed_s = log.begin_s + gathered_s - clock.now_s
            yield clock.after(log.gather_exposed_s)
        for one in passes((action,)):
            _send(step, stage, one)
    yield from _finish(step, stage, reduce_from)


_FINAL = {"B", "W"}
"""Passes that make gradients of weights."""


def _is_last_backward(plan: StepPlan, stage: int, number: int, item: Action | Pair) -> bool:
    """Tell whether this pass makes the gradients of a chunk final."""
    action = passes((item,))[-1]
    if action.kind not in _FINAL:
        return False
    order = plan.orders[stage]
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
        log.reduce_exposed_s, began_s = exposed_reduction(plan, stage, reduce_from, clock.now_s)
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
