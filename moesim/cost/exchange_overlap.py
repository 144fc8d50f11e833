"""Dispatch and combine that run beside compute: shared experts, or another micro-batch's pass.

How far each hides the other is up to the two streams of the device (`two_streams`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

from moesim.cost.host import LAUNCHES
from moesim.cost.times import Part, PassCost, pass_cost
from moesim.cost.two_streams import Interference, Ran, Task, on_streams, run_tasks

EXCHANGES = ("dispatch", "combine")


def together_s(compute_s: float, exchange_s: float, cost: Interference) -> float:
    """Return how long compute takes with an exchange beside it, at least the longer of both.

    Both run for t = min(c / (1 - taken), x / rate); what is left of one goes on alone:
    t + c - (1 - taken) t + x - rate t, at most c + x, one after the other.
    """
    tasks = [Task(Part("compute", "", compute_s)), Task(Part("scale-up", "", exchange_s), True)]
    return sum(part.seconds for part in run_tasks(tasks, cost))


def beside_shared(parts: list[Part], cost: Interference) -> list[Part]:
    """Return a layer's parts, its exchanges shorter by what its shared experts hide of them.

    Source: Megatron-LM, --moe-shared-expert-overlap.
    """
    shared_s = sum(part.seconds for part in parts if part.name == "shared experts")
    exchange_s = sum(part.seconds for part in parts if part.name in EXCHANGES)
    if not shared_s or not exchange_s:
        return parts
    left = (together_s(shared_s, exchange_s, cost) - shared_s) / exchange_s
    return [
        Part(part.stream, part.name, part.seconds * (left if part.name in EXCHANGES else 1.0))
        for part in parts
    ]


def one_after_the_other(forward: PassCost, backward: PassCost) -> PassCost:
    """Return a forward and a backward pass of two micro-batches, nothing beside anything."""
    parts, layers = [*forward.parts, *backward.parts], forward.layers + backward.layers
    return pass_cost(parts, layers, forward.host_s + backward.host_s)


def beside_each_other(forward: PassCost, backward: PassCost, cost: Interference) -> PassCost:
    """Return a forward pass with the backward pass of another micro-batch in its gaps.

    Launched in turn: combine backward, attention forward, experts backward, dispatch forward,
    dispatch backward, experts forward, attention backward, combine forward; late parts, which are
    gradients of weights, follow the stretch that they belong to, and no exchange waits for them.
    The host launches both passes, so that they take no less than it does. Source: Megatron-LM,
    --overlap-moe-expert-parallel-comm, --delay-wgrad-compute, TransformerLayerSchedulePlan.run
    (megatron-core 0.16.1, core/models/common/model_chunk_schedule_plan.py).
    """
    parts, host_s = (
        list(_streams(forward, backward, cost)[1].parts),
        forward.host_s + backward.host_s,
    )
    waits_s = max(0.0, host_s - sum(part.seconds for part in parts))
    parts.append(Part("compute", LAUNCHES, waits_s))
    return pass_cost(parts, forward.layers + backward.layers, host_s)


@dataclass(frozen=True, slots=True)
class Shown:
    """A part of a pass on the stream that is busy with it, from the start of its pair."""

    part: Part
    is_forward: bool
    start_s: float
    end_s: float


def streams_of_pair(forward: PassCost, backward: PassCost, cost: Interference) -> list[Shown]:
    """Return when what runs while two passes are beside each other, as `beside_each_other` says.

    What the device waits for launches comes last, as if it were of the backward pass.
    """
    plan, ran = _streams(forward, backward, cost)
    found = [
        Shown(task.part, of == "forward", start_s, end_s)
        for task, of, start_s, end_s in zip(
            plan.tasks, plan.passes, ran.start_s, ran.end_s, strict=True
        )
    ]
    end_s = sum(part.seconds for part in ran.parts)
    waits_s = forward.host_s + backward.host_s - end_s
    if waits_s > 0.0:
        found.append(Shown(Part("compute", LAUNCHES, waits_s), False, end_s, end_s + waits_s))
    return found


def _streams(forward: PassCost, backward: PassCost, cost: Interference) -> tuple["_Plan", Ran]:
    ahead, back = _stretches(forward), _stretches(backward)
    plan = _Plan()
    plan.launch(back[0].work, "backward")
    # forward stretch n is launched between the exchange and the work of backward stretch n + 1
    for one, other, following in zip_longest(ahead, back[1:], ahead[1:], fillvalue=_NOTHING):
        plan.launch(other.exchange, "backward")
        plan.launch(one.work, "forward")
        plan.launch(other.work, "backward")
        plan.launch(following.exchange, "forward")
    return plan, on_streams(plan.tasks, cost)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What a pass does after an exchange until the next one."""

    exchange: tuple[Part, ...]
    work: tuple[Part, ...]


_NOTHING = _Stretch((), ())


@dataclass(slots=True)
class _Plan:
    """The tasks of two passes in the order of their launches."""

    tasks: list[Task] = field(default_factory=list)
    passes: list[str] = field(default_factory=list)
    """The pass of each task."""
    last: dict[str, int] = field(default_factory=dict)
    """The last task of each pass that what follows in it waits for."""

    def launch(self, parts: Iterable[Part], of: str) -> None:
        """Add `parts` of one pass, late ones last."""
        for part in sorted(parts, key=lambda part: part.late):
            self.tasks.append(Task(part, part.name in EXCHANGES, self.last.get(of)))
            self.passes.append(of)
            if not part.late:
                self.last[of] = len(self.tasks) - 1


def _stretches(one: PassCost) -> list[_Stretch]:
    parts = tuple(part for part in one.parts if part.name != LAUNCHES)
    starts = [n for n, part in enumerate(parts) if part.name in EXCHANGES]
    ends = [*starts, len(parts)]
    found = [_Stretch((), parts[: ends[0]])]
    for start, end in zip(starts, ends[1:], strict=True):
        found.append(_Stretch((parts[start],), parts[start + 1 : end]))
    return found
