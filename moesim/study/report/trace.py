"""trace.json: the first step as a timeline for chrome://tracing or ui.perfetto.dev.

One process per simulated model, one track per stage and stream; slices of a track never overlap.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from moesim.cost.times import PassCost
from moesim.sim.kernel import Slice
from moesim.study.findings import Findings
from moesim.study.outcome import Outcome

MAX_DETAILED = 20_000
"""Slices of the detailed micro-batches at most; later ones show whole passes."""

MAX_SLICES = 100_000
"""Slices of a run at most; what comes later in the step is left out, and said."""


def trace(result: Findings) -> dict[str, Any]:
    """Return the Chrome trace of a result's first step, times in microseconds."""
    events: list[dict[str, Any]] = []
    for process, (who, outcome) in enumerate(result.runs):
        events += _process(process, f"{who}: {outcome.run.architecture.name}", outcome)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _process(process: int, name: str, outcome: Outcome) -> list[dict[str, Any]]:
    slices = list(islice(detailed(outcome), MAX_SLICES))
    if len(slices) == MAX_SLICES:
        name += f" (the first {MAX_SLICES:,} slices)"
    tracks = sorted({one.track for one in slices}, key=_track_order)
    numbers = {track: number for number, track in enumerate(tracks)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": process, "name": "process_name", "args": {"name": name}}
    ]
    for track, number in numbers.items():
        about = {"ph": "M", "pid": process, "tid": number}
        events.append({**about, "name": "thread_name", "args": {"name": track}})
        events.append({**about, "name": "thread_sort_index", "args": {"sort_index": number}})
    events += [
        {
            "ph": "X",
            "pid": process,
            "tid": numbers[one.track],
            "name": one.name,
            **_times(one),
        }
        for one in slices
    ]
    return events


def _times(one: Slice) -> dict[str, float]:
    """Round both ends to a nanosecond: neighbours that touch still touch, none overlap."""
    start, end = round(one.start_s * 1e9), round((one.start_s + one.duration_s) * 1e9)
    return {"ts": start / 1e3, "dur": (end - start) / 1e3}


def _track_order(track: str) -> tuple[int, str]:
    _, stage, stream = track.split(" ", 2)
    return int(stage), stream


def detailed(outcome: Outcome) -> Iterator[Slice]:
    """Yield the slices of a step, with the passes of the first micro-batches taken apart."""
    budget = MAX_DETAILED
    for one in sorted(outcome.slices, key=lambda one: (one.start_s, one.track)):
        work = _pass(outcome, one)
        if work is None or len(work.parts) > budget:
            yield one
            continue
        budget -= len(work.parts)
        yield from _parts(one, work)


def _pass(outcome: Outcome, one: Slice) -> PassCost | None:
    """Return what the pass "F3.1" of a stage's compute track consists of."""
    _, stage, stream = one.track.split(" ", 2)
    if stream != "compute" or one.name[0] not in "FBIW" or "." not in one.name:
        return None
    chunk = int(one.name.rpartition(".")[2])
    cost = outcome.stages[int(stage)]
    if "&" in one.name:
        forward = int(one.name.partition("&")[0].rpartition(".")[2])
        return cost.joint[forward][chunk]
    kinds = {"F": cost.forward, "B": cost.backward, "I": cost.inputs, "W": cost.weights}
    return kinds[one.name[0]][chunk]


def _parts(one: Slice, work: PassCost) -> Iterator[Slice]:
    start_s = one.start_s
    prefix = one.track.rpartition(" ")[0]
    for part in work.parts:
        yield Slice(f"{prefix} {part.stream}", f"{one.name} {part.name}", start_s, part.seconds)
        start_s += part.seconds
