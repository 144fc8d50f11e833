"""trace.json: iterations of each replica for chrome://tracing or ui.perfetto.dev.

One process per replica: a track of iterations, and counters of requests and cache.
"""

from itertools import groupby
from typing import Any

from moesim.study.serving.gaps import columns
from moesim.study.serving.series import series
from moesim.study.serving.simulate import ServingOutcome
from moesim.study.serving.token_times import iterations

MOST = 20_000
"""Iterations of a replica at most; what comes later is left out, and said."""

MOST_OF_ALL = 100_000
"""Iterations of all replicas together at most, as many of each."""


def trace(outcome: ServingOutcome) -> dict[str, Any]:
    """Return the Chrome trace of a run, times in microseconds."""
    events: list[dict[str, Any]] = []
    states: dict[int, list[dict[str, Any]]] = {}
    for state in series(outcome):
        states.setdefault(state["replica"], []).append(state)
    most = min(MOST, MOST_OF_ALL // max(1, len(outcome.logs)))
    for number in range(len(outcome.logs)):
        slices = _slices(outcome, number, most)
        cut = f" (the first {most:,} iterations)" if len(slices) == most else ""
        events.append(
            {"ph": "M", "pid": number, "name": "process_name", "args": {"name": _name(number, cut)}}
        )
        about = {"ph": "M", "pid": number, "tid": 0, "name": "thread_name"}
        events.append({**about, "args": {"name": "iterations"}})
        events += slices
        end = slices[-1]["ts"] if slices else 0.0
        events += _counters(states.get(number, []), number, None if not cut else end)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _name(number: int, cut: str) -> str:
    return f"replica {number}{cut}"


def _slices(outcome: ServingOutcome, number: int, most: int) -> list[dict[str, Any]]:
    log = outcome.logs[number]
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
                "ph": "X", "pid": number, "tid": 0, "name": name, **_times(start, end),
                "args": {"prompt_tokens": prompt, "sequences": decoding},
            }
        )  # fmt: skip
    return found


def _times(start_ps: int, end_ps: int) -> dict[str, float]:
    """Round both ends to a nanosecond: neighbours that touch still touch, none overlap."""
    start, end = round(start_ps / 1e3), round(end_ps / 1e3)
    return {"ts": start / 1e3, "dur": (end - start) / 1e3}


def _counters(
    rows: list[dict[str, Any]], number: int, until_us: float | None
) -> list[dict[str, Any]]:
    found = []
    for time_s, group in groupby(rows, key=lambda row: row["time_s"]):
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
