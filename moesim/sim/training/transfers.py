"""What stages send each other in a step: activations forward, their gradients back."""

from dataclasses import dataclass

from moesim.sim.kernel import Slice
from moesim.sim.training.schedules import Action, Order, Pair, passes
from moesim.sim.training.step import StepPlan, StepResult, ways


@dataclass(frozen=True, slots=True)
class Done:
    """A pass, or a pair of passes, and when it ran."""

    item: Action | Pair
    slice: Slice


@dataclass(frozen=True, slots=True)
class Transfer:
    """The result of a pass on its way to the stage that needs it."""

    action: Action
    sender: int
    receiver: int
    start_s: float
    duration_s: float
    needed_by: Action
    """The pass that waits for it."""


def passes_done(orders: tuple[Order, ...], result: StepResult) -> list[list[Done]]:
    """Return what every stage did in a step, in order."""
    ran: list[list[Slice]] = [[] for _ in orders]
    for piece in result.slices:
        _, stage, stream = piece.track.split(" ", 2)
        if stream == "compute" and piece.name != "optimizer":
            ran[int(stage)].append(piece)
    return [
        [Done(item, piece) for item, piece in zip(order, pieces, strict=True)]
        for order, pieces in zip(orders, ran, strict=True)
    ]


def transfers(plan: StepPlan, done: list[list[Done]]) -> list[Transfer]:
    """Return the transfers of a step that take time."""
    known = [ways(plan, stage) for stage in range(len(done))]
    needed = {
        (known[stage][one.kind, one.chunk].takes, one.micro_batch): (stage, one)
        for stage, order in enumerate(plan.orders)
        for one in passes(order)
    }
    found = []
    for stage, items in enumerate(done):
        for ran in items:
            for one in passes((ran.item,)):
                way = known[stage][one.kind, one.chunk]
                if way.gives is None or not way.delay_s:
                    continue
                receiver, by = needed[way.gives, one.micro_batch]
                end_s = ran.slice.start_s + ran.slice.duration_s
                found.append(Transfer(one, stage, receiver, end_s, way.delay_s, by))
    return found
