"""The picture of a serving run over time: of each engine, or of each pool where they are many."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from moesim.cost.iteration import PS_PER_S
from moesim.study.report.charts import plain_layout
from moesim.study.serving.findings import Served
from moesim.study.serving.gaps import columns
from moesim.study.serving.series import of_place
from moesim.study.serving.simulate import ServingOutcome
from moesim.study.serving.usage import EnginePlace, engine_places

Rows = list[dict[str, Any]]

EACH = 4
"""Engines that have a line each, at most."""

_POINTS = 1500
"""Points of a pool's line."""

_GRID = "#e4e7eb"
_COLOURS = ("#1f7a53", "#1b6ca8", "#b08968", "#d1495b")
_TITLES = {
    "running": "running", "waiting": "waiting", "cache_fraction": "cache, %",
    "preemptions": "preemptions", "prefix_hit_tokens": "hit tokens",
    "ready": "ready",
}  # fmt: skip


def over_time(run: Served) -> dict[str, Any]:
    """Return who runs and waits, the fill of the cache, preemptions and hits, replicas ready."""
    lines = _lines(run.outcome)
    panels = ["running", "waiting", "cache_fraction"]
    panels += [
        name
        for name in ("preemptions", "prefix_hit_tokens")
        if any(row[name] for _, rows in lines for row in rows)
    ]
    panels += ["ready"] if run.outcome.events else []
    data: list[dict[str, Any]] = []
    layout = plain_layout(130 * len(panels) + 80, showlegend=len(lines) > 1)
    for number, panel in enumerate(panels, start=1):
        shown = _ready(run.outcome) if panel == "ready" else lines
        axis = "" if number == 1 else str(number)
        data += _panel(shown, panel, axis, first=number == 1)
        high = 1 - (number - 1) / len(panels)
        whole = {"dtick": 1} if panel == "ready" and _few(shown) else {}
        layout[f"yaxis{axis}"] = {
            "title": {"text": _TITLES[panel], "standoff": 8},
            "domain": [high - 0.84 / len(panels), high], "gridcolor": _GRID,
            "rangemode": "tozero", "automargin": True, "nticks": 4, **whole,
        }  # fmt: skip
    layout["xaxis"] = {
        "title": {"text": "seconds", "standoff": 6}, "gridcolor": _GRID,
        "anchor": f"y{len(panels) if len(panels) > 1 else ''}",
    }  # fmt: skip
    layout["legend"] = {"orientation": "h", "y": -60 / (130 * len(panels))}
    return {"data": data, "layout": layout}


def _few(shown: Sequence[tuple[str, Rows]]) -> bool:
    return max((row["ready"] for _, rows in shown for row in rows), default=0) < 5


def _panel(
    lines: Sequence[tuple[str, Rows]], panel: str, axis: str, *, first: bool
) -> Iterator[dict[str, Any]]:
    scale = 100 if panel == "cache_fraction" else 1
    for number, (name, rows) in enumerate(lines):
        yield {
            "type": "scatter", "mode": "lines", "name": name, "legendgroup": name,
            "line": {"shape": "hv", "width": 1.5, "color": _COLOURS[number % len(_COLOURS)]},
            "showlegend": first, "x": [float(f"{row['time_s']:.6g}") for row in rows],
            "y": [float(f"{scale * row[panel]:.5g}") for row in rows],
            "xaxis": "x", "yaxis": f"y{axis}",
        }  # fmt: skip


def _lines(outcome: ServingOutcome) -> list[tuple[str, Rows]]:
    """Return a line of states for each engine, or for each pool where they are many."""
    places = engine_places(outcome.run.pools, outcome.logs)
    if len(places) <= EACH:
        return [(place.name, list(of_place(outcome, place))) for place in places]
    pools = dict.fromkeys(place.pool for place in places)
    return [
        ("all replicas" if name == "all" else f"{name} replicas",
         _summed(outcome, [place for place in places if place.pool == name]))
        for name in pools
    ]  # fmt: skip


def _summed(outcome: ServingOutcome, places: list[EnginePlace]) -> Rows:
    """Return the states of all engines together: sums, of the cache the mean over them."""
    each = [list(of_place(outcome, place)) for place in places]
    times = np.unique([row["time_s"] for rows in each for row in rows])
    if len(times) > _POINTS:
        times = times[np.linspace(0, len(times) - 1, _POINTS).astype(int)]
    total: Rows = [{"time_s": float(at)} for at in times]
    for name in ("running", "waiting", "cache_fraction", "preemptions", "prefix_hit_tokens"):
        added = np.zeros(len(times))
        for rows in each:
            ends = np.array([row["time_s"] for row in rows])
            values = np.array([0.0, *(row[name] for row in rows)])
            if name in ("preemptions", "prefix_hit_tokens"):  # an engine begins anew from 0
                values = np.concatenate([[0.0], np.cumsum(np.maximum(0.0, np.diff(values)))])
            added += values[np.searchsorted(ends, times, side="right")]
        share = len(places) if name == "cache_fraction" else 1
        for row, value in zip(total, added / share, strict=True):
            row[name] = float(value)
    return total


def _ready(outcome: ServingOutcome) -> list[tuple[str, Rows]]:
    """Return how many replicas of each pool take requests, from 0 to the end."""
    last = max((int(columns(log)["ends"][-1]) for log in outcome.logs if log.rows), default=0)
    end = last / PS_PER_S
    found = []
    for pool in outcome.run.pools:
        rows: Rows = [{"time_s": 0.0, "ready": pool.replicas}]
        rows += [
            {"time_s": one.time_s, "ready": one.ready}
            for one in outcome.events
            if one.pool == pool.name
        ]
        rows = rows[: bisect_right([row["time_s"] for row in rows], end)]
        found.append(
            (f"{pool.name} replicas", [*rows, {"time_s": end, "ready": rows[-1]["ready"]}])
        )
    return found
