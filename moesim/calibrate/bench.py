"""Times a call on the device: warm-up, batches, what most of them took, and their spread."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.calibrate.clock import lap, mark
from moesim.calibrate.device import Target, synchronise, torch_module

Call = Callable[[int], object]
"""Does the work once; the number lets it take the next buffer in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What repeated calls took."""

    seconds: float
    """One call on the device: the median batch of a GPU; of a CPU, whose other programs only ever
    add, the quickest tenth."""
    host_s: float
    """What the host needs to ask for it; on a CPU the same."""
    spread: float
    """Half the distance between the quartiles, over `seconds`."""
    repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long a measurement may go on."""

    limit_s: float = 0.3
    batch_s: float = 5e-4
    """Calls are repeated within a batch until it lasts this long."""
    most: int = 40
    """Batches at most."""
    least: int = 4
    """Batches at least, but for those that take ten times the limit."""


_EFFORT = Effort()


def time_call(
    call: Call, target: Target, effort: Effort = _EFFORT, *, wall: bool = False
) -> Timing:
    """Return how long `call` takes; no garbage is collected meanwhile.

    `wall`: the host counts, as it does in a whole step; else a GPU's own time alone.
    """
    once = 0.0
    for turn in range(3):  # the first two warm up: memory, caches, kernels chosen
        begin = mark(delays=target.kind == "cpu")
        call(turn)
        synchronise(target)
        once = max(lap(begin).seconds, 1e-7)
    most = 200 if target.kind == "cuda" else 1000  # the launch queue of a GPU has its end
    inner = int(min(most, max(1, effort.batch_s // once)))
    was_on = gc.isenabled()
    gc.disable()
    try:
        device, host = _batches(call, target, effort, (inner, wall))
    finally:
        if was_on:
            gc.enable()
    return timing(device, host, target)


def timing(device: list[float], host: list[float], target: Target) -> Timing:
    """Return batches, in seconds per call, as one timing."""
    low, middle, high = np.quantile(device, (0.25, 0.5, 0.75))
    taken = 0.1 if target.kind == "cpu" else 0.5
    return Timing(
        seconds=float(np.quantile(device, taken)),
        host_s=float(np.quantile(host, taken)),
        spread=float((high - low) / 2 / middle),
        repeats=len(device),
    )


def per_call(taken: Timing, times: int) -> Timing:
    """Return the timing of one of the `times` that a call does its work."""
    return replace(taken, seconds=taken.seconds / times, host_s=taken.host_s / times)


def _batches(
    call: Call, target: Target, effort: Effort, how: tuple[int, bool]
) -> tuple[list[float], list[float]]:
    inner, wall = how
    batch = _cuda_batch if target.kind == "cuda" and not wall else _plain_batch
    device: list[float] = []
    host: list[float] = []
    begin, turn, guess_s = time.perf_counter(), 0, effort.batch_s
    while len(device) < effort.most:
        spent = time.perf_counter() - begin
        enough = len(device) >= effort.least and spent > effort.limit_s
        if enough or (device and spent > 10 * effort.limit_s):
            break
        one, asked = batch(call, target, range(turn, turn + inner), guess_s)
        device.append(one / inner)
        host.append(asked / inner)
        turn, guess_s = turn + inner, asked
    return device, host


def _plain_batch(call: Call, target: Target, turns: range, guess_s: float) -> tuple[float, float]:
    del guess_s
    begin = mark(delays=target.kind == "cpu")
    for turn in turns:
        call(turn)
    asked = time.perf_counter() - begin.wall_s
    synchronise(target)
    taken = lap(begin).seconds
    return taken, min(asked, taken)


_SPINS_PER_S = 2e9
"""Cycles of a GPU in a second, at most: the queue is held back that long while it fills."""


def _cuda_batch(call: Call, target: Target, turns: range, guess_s: float) -> tuple[float, float]:
    """Time a batch with events, behind a wait that lets the host fill the queue first."""
    torch = torch_module()
    start, end = _event(torch), _event(torch)
    synchronise(target)
    torch.cuda._sleep(int(min(0.05, 1.5 * guess_s + 5e-5) * _SPINS_PER_S))
    start.record()
    begin = time.perf_counter()
    for turn in turns:
        call(turn)
    asked = time.perf_counter() - begin
    end.record()
    synchronise(target)
    return start.elapsed_time(end) / 1e3, asked


def _event(torch: Any) -> Any:
    return torch.cuda.Event(enable_timing=True)
