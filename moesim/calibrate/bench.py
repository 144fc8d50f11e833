"""Times a call on the device: warm-up, batches, what most of them took, and their spread."""

import gc
import time
from collections.abc import Callable, Sequence
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
    disturbed: float = 0.0
    """Share of the time that other programs held a processor, where no clock can take it off."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some calls together, in seconds per call."""

    seconds: float
    host_s: float
    delayed_share: float = 0.0


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
        begin = mark(target.computing_threads)
        call(turn)
        synchronise(target)
        once = max(lap(begin).seconds, 1e-7)
    most = 200 if target.kind == "cuda" else 1000  # the launch queue of a GPU has its end
    inner = int(min(most, max(1, effort.batch_s // once)))
    was_on = gc.isenabled()
    gc.disable()
    try:
        return timing(_batches(call, target, effort, (inner, wall)), target)
    finally:
        if was_on:
            gc.enable()


CLEAN, CLEAN_TOGETHER = 0.03, 0.1
"""Share of a batch that threads may wait for processors and still count as undisturbed; ranks wait
for the threads of their own communication library too."""


def timing(batches: Sequence[Batch], target: Target) -> Timing:
    """Return batches as one timing; those that nothing disturbed count alone, where there are any.

    One thread's wait is taken off exactly; threads and ranks that wait for each other are slower
    by more than the longest wait, so their disturbed batches are worth little.
    """
    alone = target.compute_units * target.processes == 1 or target.kind != "cpu"
    most = CLEAN if target.processes == 1 else CLEAN_TOGETHER
    clean = [one for one in batches if alone or one.delayed_share <= most]
    used = clean or list(batches)
    low, middle, high = np.quantile([one.seconds for one in used], (0.25, 0.5, 0.75))
    taken = 0.1 if target.kind == "cpu" else 0.5
    waited = 0.0 if clean else float(np.median([one.delayed_share for one in used]))
    return Timing(
        seconds=float(np.quantile([one.seconds for one in used], taken)),
        host_s=float(np.quantile([one.host_s for one in used], taken)),
        spread=float((high - low) / 2 / middle),
        repeats=len(used),
        disturbed=waited,
    )


def per_call(taken: Timing, times: int) -> Timing:
    """Return the timing of one of the `times` that a call does its work."""
    return replace(taken, seconds=taken.seconds / times, host_s=taken.host_s / times)


def _batches(call: Call, target: Target, effort: Effort, how: tuple[int, bool]) -> list[Batch]:
    inner, wall = how
    batch = _cuda_batch if target.kind == "cuda" and not wall else _plain_batch
    found: list[Batch] = []
    begin, turn, guess_s = time.perf_counter(), 0, effort.batch_s
    while len(found) < effort.most:
        spent = time.perf_counter() - begin
        enough = len(found) >= effort.least and spent > effort.limit_s
        if enough or (found and spent > 10 * effort.limit_s):
            break
        one = batch(call, target, range(turn, turn + inner), guess_s)
        found.append(Batch(one.seconds / inner, one.host_s / inner, one.delayed_share))
        turn, guess_s = turn + inner, one.host_s
    return found


def _plain_batch(call: Call, target: Target, turns: range, guess_s: float) -> Batch:
    del guess_s
    begin = mark(target.computing_threads)
    for turn in turns:
        call(turn)
    asked = time.perf_counter() - begin.wall_s
    synchronise(target)
    taken = lap(begin)
    return Batch(taken.seconds, min(asked, taken.seconds), taken.delayed_share)


_SPINS_PER_S = 2e9
"""Cycles of a GPU in a second, at most: the queue is held back that long while it fills."""


def _cuda_batch(call: Call, target: Target, turns: range, guess_s: float) -> Batch:
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
    return Batch(start.elapsed_time(end) / 1e3, asked)


def _event(torch: Any) -> Any:
    return torch.cuda.Event(enable_timing=True)
