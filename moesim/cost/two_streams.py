"""The two streams of a device, one that computes and one that exchanges tokens.

Each does its tasks in the order in which they were launched, as CUDA streams do; a task starts when
its stream is free and the task that it needs has ended. While compute has an exchange beside it,
compute goes at 1 - `taken` of its speed, the units that communication kernels leave, and the
exchange at `rate` of its own. Where that gains nothing, and where the first stream waits for a
network itself, the exchange waits. So max(busy time of either stream) <= span <= sum of all tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from moesim.cost.software import Software
from moesim.cost.times import Part
from moesim.hardware.device import Device

EXCHANGE_UNITS = 20
"""Compute units that dispatch and combine kernels take: 20 of the 132 of an H800 (DeepSeek-V3
technical report, arXiv 2412.19437, section 3.2.2; moe_deepep_num_sms of Megatron-LM)."""
HYBRIDEP_UNITS = 16
"""Those of HybridEP: moe_hybridep_num_sms, transformer_config.py of megatron-core 0.16.1."""
SLOWED = "slowed by exchange"


@dataclass(frozen=True, slots=True)
class Interference:
    """What communication and compute cost each other."""

    rate: float
    """Rate of an exchange beside compute, as a share of its rate alone."""
    taken: float
    """Share of the compute units that an exchange takes meanwhile."""


@dataclass(frozen=True, slots=True)
class Task:
    """Something that a stream does."""

    part: Part
    apart: bool = False
    """Whether it is on the second stream."""
    after: int | None = None
    """The place of the task that must have ended before."""


def interference(device: Device, software: Software, dispatcher: str = "") -> Interference:
    """Return what exchanges on `device` cost; with hardly any units engines of their own send."""
    units = device.compute_units or 0
    wanted = HYBRIDEP_UNITS if dispatcher == "hybridep" else EXCHANGE_UNITS
    taken = wanted / units if units > EXCHANGE_UNITS else 0.0
    return Interference(software.overlapped_fraction, taken)


def run_tasks(tasks: Sequence[Task], cost: Interference) -> list[Part]:
    """Return what the device shows until all `tasks` are done: compute, and exchanges left alone.

    Raises ValueError where a task waits for one that is launched after it.
    """
    left = [task.part.seconds for task in tasks]
    queues = [[n for n, task in enumerate(tasks) if task.apart is apart] for apart in (True, False)]
    found: list[Part] = []
    ended = [False] * len(tasks)
    while any(queues):
        ready = [_ready(queue, tasks, ended) for queue in queues]
        found += _advance(tasks, left, (ready[1], ready[0]), cost)
        for queue, head in zip(queues, ready, strict=True):
            if head is not None and left[head] <= 0.0:
                ended[head] = True
                queue.pop(0)
    return found


def _ready(queue: list[int], tasks: Sequence[Task], ended: list[bool]) -> int | None:
    """Return the first task of a stream if it can run."""
    if not queue:
        return None
    needed = tasks[queue[0]].after
    return queue[0] if needed is None or ended[needed] else None


def _advance(
    tasks: Sequence[Task], left: list[float], heads: tuple[int | None, int | None],
    cost: Interference,
) -> list[Part]:  # fmt: skip
    """Run until the first of the two heads ends, and return what was done."""
    first, second = heads
    speed = 1 - cost.taken
    if first is not None and second is not None:
        own = tasks[first].part
        if own.stream == "compute" and speed + cost.rate > 1:
            passed_s = min(left[first] / speed, left[second] / cost.rate)
            left[first] = _rest(left[first], passed_s * speed)
            left[second] = _rest(left[second], passed_s * cost.rate)
            slowed = Part("compute", SLOWED, passed_s * cost.taken)
            return [Part(own.stream, own.name, passed_s * speed), slowed]
    alone = first if first is not None else second
    if alone is None:
        raise ValueError("a task waits for one that is launched after it on the same stream")
    part = tasks[alone].part
    seconds, left[alone] = left[alone], 0.0
    return [Part(part.stream, part.name, seconds)]


def _rest(seconds: float, done: float) -> float:
    """Return what is left; rounding leaves nothing."""
    return seconds - done if done < seconds * (1 - 1e-12) else 0.0
