"""trace.json: iterations of each engine for chrome://tracing or ui.perfetto.dev.

One process per engine: a track of iterations, counters of requests and cache, caches on their way
to it as asynchronous slices, and marks where its replica came or went.
"""

from itertools import groupby
from typing import Any

from moesim.cost.iteration import PS_PER_S
from moesim.sim.serving.log import Log
from moesim.study.serving.gaps import columns
from moesim.study.serving.series import of_place
from moesim.study.serving.simulate import ServingOutcome
from moesim.study.serving.token_times import iterations
from moesim.study.serving.usage import EnginePlace, engine_places

MOST = 20_000
"""Iterations of an engine at most; what comes later is left out, and said."""

ALL = 60_000
"""Iterations of all engines together, of which each has its part: a file that viewers open."""

Event = dict[str, Any]


def trace(outcome: ServingOutcome) -> dict[str, Any]:
    """Return the Chrome trace of a run, times in microseconds."""
    events: list[Event] = []
    most = max(1, min(MOST, ALL // max(1, len(outcome.logs))))
    for number, place in enumerate(engine_places(outcome.run.pools, outcome.logs)):
        slices: list[Event] = []
        for log in place.logs:
            slices += _slices(log, number, most - len(slices))
        cut = f" (the first {most:,} iterations)" if len(slices) == most else ""
        about = {"ph": "M", "pid": number}
        events += [
            {**about, "name": "process_name", "args": {"name": f"{place.name}{cut}"}},
            {**about, "name": "process_sort_index", "args": {"sort_index": number}},
            {**about, "tid": 0, "name": "thread_name", "args": {"name": "iterations"}},
        ]
        events += slices
        until = slices[-1]["ts"] if cut else None
        events += _counters(outcome, place, number, until)
        events += _arrivals(place, number, until)
        events += _marks(outcome, place, number, until)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _slices(log: Log, number: int, most: int) -> list[Event]:
    rows = columns(log)
    found = []
    for row, start, end in iterations(log, most):
        decoding, prompt = int(rows["sequences"][row]), int(rows["prompt_tokens"][row])
        name = " + ".join(
            text
            for text in (
                f"prefill {prompt}" if prompt else "",
                f"decode {decoding}" * (decoding > 0),
            )
            if text
        )
        found.append(
            {
                "ph": "X", "pid": number, "tid": 0, "name": name or "waits for other ranks",
                **_times(start, end), "args": {"prompt_tokens": prompt, "sequences": decoding},
            }
        )  # fmt: skip
    return found


def _times(start_ps: int, end_ps: int) -> dict[str, float]:
    """Round both ends to a nanosecond: neighbours that touch still touch, none overlap."""
    start, end = round(start_ps / 1e3), round(end_ps / 1e3)
    return {"ts": start / 1e3, "dur": (end - start) / 1e3}


def _counters(
    outcome: ServingOutcome, place: EnginePlace, number: int, until_us: float | None
) -> list[Event]:
    found: list[Event] = []
    for time_s, group in groupby(of_place(outcome, place), key=lambda row: row["time_s"]):
        row = list(group)[-1]
        at = round(time_s * 1e9) / 1e3
        if until_us is not None and at > until_us:
            break
        counter = {"ph": "C", "pid": number, "ts": at}
        shown = {"running": row["running"], "waiting": row["waiting"]}
        found.append({**counter, "name": "requests", "args": shown})
        found.append(
            {**counter, "name": "cache, %", "args": {"used": round(100 * row["cache_fraction"], 3)}}
        )
    return found


def _arrivals(place: EnginePlace, number: int, until_us: float | None) -> list[Event]:
    """Return the caches that came to an engine, from the first token to their arrival."""
    found: list[Event] = []
    for log in place.logs:
        for request, at, since in log.arrived:
            span = _times(since, at)
            if until_us is not None and span["ts"] > until_us:
                continue
            about = {"cat": "cache", "id": request, "pid": number, "name": f"cache of {request}"}
            found.append({"ph": "b", "ts": span["ts"], **about})
            found.append({"ph": "e", "ts": span["ts"] + span["dur"], **about})
    return found


def _marks(
    outcome: ServingOutcome, place: EnginePlace, number: int, until_us: float | None
) -> list[Event]:
    """Return what came and went of an engine's replica, as instants."""
    return [
        {"ph": "i", "s": "p", "pid": number, "tid": 0, "ts": round(one.time_s * 1e9) / 1e3,
         "name": one.event}
        for one in outcome.events
        if (one.pool, one.replica) == (place.pool, place.replica)
        and (until_us is None or one.time_s * PS_PER_S <= until_us * 1e6)
    ]  # fmt: skip
