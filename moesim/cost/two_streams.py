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


@dataclass(frozen=True, slots=True)
class Ran:
    """What both streams did: what the device shows, and when each task ran."""

    parts: list[Part]
    """Compute, and exchanges left alone, one after the other."""
    start_s: list[float]
    end_s: list[float]
    """A task holds its stream from start to end; an exchange may stand still in between."""


def run_tasks(tasks: Sequence[Task], cost: Interference) -> list[Part]:
    """Return what the device shows until all `tasks` are done: compute, and exchanges left alone.

    Raises ValueError where a task waits for one that is launched after it.
    """
    return on_streams(tasks, cost).parts


def on_streams(tasks: Sequence[Task], cost: Interference) -> Ran:
    """Return what the device shows until all `tasks` are done, and when each of them ran.

    Raises ValueError where a task waits for one that is launched after it.
    """
    run = _Run(tasks, [task.part.seconds for task in tasks], cost)
    own, apart = ([n for n, task in enumerate(tasks) if task.apart is side] for side in _SIDES)
    ended = [False] * len(tasks)
    first = second = 0
    while first < len(own) or second < len(apart):
        head = _ready(own, first, tasks, ended)
        other = _ready(apart, second, tasks, ended)
        if head >= 0 <= other and run.gains and tasks[head].part.stream == "compute":
            run.together(head, other)
        elif head >= 0 or other >= 0:
            run.alone(head if head >= 0 else other)
        else:
            raise ValueError("a task waits for one that is launched after it on the same stream")
        if head >= 0 >= run.left[head]:
            ended[head] = True
            first += 1
        if other >= 0 >= run.left[other]:
            ended[other] = True
            second += 1
    return Ran(run.parts, run.start_s, run.end_s)


_SIDES = (False, True)


def _ready(queue: list[int], place: int, tasks: Sequence[Task], ended: list[bool]) -> int:
    """Return the first task of a stream if it can run, else -1."""
    if place >= len(queue):
        return -1
    needed = tasks[queue[place]].after
    return queue[place] if needed is None or ended[needed] else -1


class _Run:
    """The state of both streams."""

    __slots__ = ("end_s", "gains", "left", "now_s", "parts", "rate", "speed", "start_s", "taken",
                 "tasks")  # fmt: skip

    def __init__(self, tasks: Sequence[Task], left: list[float], cost: Interference) -> None:
        self.tasks, self.left = tasks, left
        self.taken, self.speed, self.rate = cost.taken, 1 - cost.taken, cost.rate
        self.gains = self.speed + self.rate > 1
        self.now_s = 0.0
        self.parts: list[Part] = []
        self.start_s = [-1.0] * len(tasks)
        self.end_s = [0.0] * len(tasks)

    def together(self, first: int, second: int) -> None:
        """Run until the first of both ends."""
        left, speed, rate = self.left, self.speed, self.rate
        passed_s = min(left[first] / speed, left[second] / rate)
        left[first] = _rest(left[first], passed_s * speed)
        left[second] = _rest(left[second], passed_s * rate)
        own = self.tasks[first].part
        self.parts.append(Part(own.stream, own.name, passed_s * speed))
        self.parts.append(Part("compute", SLOWED, passed_s * self.taken))
        self._passed((first, second), passed_s)

    def alone(self, task: int) -> None:
        """Run one task until it ends."""
        part, seconds = self.tasks[task].part, self.left[task]
        self.left[task] = 0.0
        whole = not part.late and seconds == part.seconds
        self.parts.append(part if whole else Part(part.stream, part.name, seconds))
        self._passed((task,), seconds)

    def _passed(self, tasks: tuple[int, ...], seconds: float) -> None:
        for one in tasks:
            if self.start_s[one] < 0:
                self.start_s[one] = self.now_s
            self.end_s[one] = self.now_s + seconds
        self.now_s += seconds


def _rest(seconds: float, done: float) -> float:
    """Return what is left; rounding leaves nothing."""
    return seconds - done if done < seconds * (1 - 1e-12) else 0.0
