"""The clock of measurements: the wall's, less the time that other programs held the processor.

On Linux each thread knows how long it was ready to run but had to wait for a processor
(/proc/self/task/*/schedstat). What the most delayed thread waited is taken off, so that a busy
machine gives nearly the times of a quiet one; where nothing waits, this is the wall clock.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment: the wall clock, and what each thread had waited by then."""

    wall_s: float
    delayed_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Lap:
    """The time since a mark."""

    wall_s: float
    delayed_s: float
    """How long the most delayed thread waited for a processor."""

    @property
    def seconds(self) -> float:
        """The time without that wait, at least a tenth of it."""
        return max(self.wall_s - self.delayed_s, 0.1 * self.wall_s)

    @property
    def delayed_share(self) -> float:
        """The share of the time that was waited."""
        return self.delayed_s / self.wall_s if self.wall_s else 0.0


def mark(threads: int | None) -> Mark:
    """Return this moment, with what the threads that compute have waited, where the system tells.

    None: no waits; 1: those of the main thread, whatever other threads serve it; more: of all.
    """
    waited = {} if threads is None else _delayed_s(main_only=threads == 1)
    return Mark(time.perf_counter(), waited)


def lap(since: Mark) -> Lap:
    """Return the time since a mark."""
    wall = time.perf_counter() - since.wall_s
    if not since.delayed_s:
        return Lap(wall, 0.0)
    now = _delayed_s(main_only=len(since.delayed_s) == 1)
    waited = [now[name] - before for name, before in since.delayed_s.items() if name in now]
    return Lap(wall, max(waited, default=0.0))


def _delayed_s(*, main_only: bool) -> dict[str, float]:
    found = {}
    try:
        tasks = [_TASKS / str(os.getpid())] if main_only else list(_TASKS.iterdir())
    except OSError:
        return {}
    for task in tasks:
        try:
            text = (task / "schedstat").read_text(encoding="ascii")
            found[task.name] = int(text.split()[1]) * 1e-9
        except (OSError, ValueError, IndexError):  # the thread has ended, or nothing is counted
            continue
    return found


def contention(call: Callable[[], object], threads: int, for_s: float = 0.3) -> float:
    """Return the share of the time that the most delayed thread of `call` waits for a processor."""
    call()
    begin = mark(threads)
    while time.perf_counter() - begin.wall_s < for_s:
        call()
    return lap(begin).delayed_share
