"""The pictures of a serving report, as plotly's plain data."""

from typing import Any

import numpy as np

from moesim.study.report.charts import plain_layout
from moesim.study.report.serving.over_time import over_time
from moesim.study.report.words import binary, percent
from moesim.study.serving.findings import Served, ServingFindings
from moesim.study.serving.gap_ranks import percentiles_s, shares_up_to
from moesim.study.serving.groups import Groups
from moesim.study.serving.metrics import counted
from moesim.study.serving.pool_findings import PoolServed
from moesim.units import readable

Chart = dict[str, Any]
_GRID = "#e4e7eb"
_LINES = ("#1f7a53", "#1b6ca8", "#b08968", "#d1495b", "#6d597a", "#e9c46a", "#5c677d", "#2a9d8f")
_GROUPS = {
    "attention": "#1b6ca8",
    "projections and norms": "#4f9bd0",
    "dense FFN": "#2a9d8f",
    "experts": "#1f7a53",
    "missing experts": "#c1121f",
    "guesses": "#6d597a",
    "router": "#8ab17d",
    "exchange of tokens": "#d1495b",
    "all-reduce": "#f28482",
    "embedding": "#9aa5b1",
    "head": "#5c677d",
    "host": "#e9c46a",
    "encoder and host": "#e9c46a",
}
"""Blue and green compute, red communication and fetching, yellow the device waits for the host."""

_MEMORY = {
    "expert weights": "#1f7a53",
    "attention weights": "#1b6ca8",
    "dense and shared weights": "#2a9d8f",
    "embeddings and head": "#5c677d",
    "what guesses tokens": "#8ab17d",
    "activations": "#e9c46a",
    "communication and workspaces": "#f28482",
    "hidden from processes": "#9aa5b1",
    "cache": "#6d597a",
}
_POINTS = 200


def charts(result: ServingFindings) -> dict[str, Chart]:
    """Return the pictures by name; those without anything to show are left out."""
    found: dict[str, Chart] = {}
    if result.model.outcome.metrics.finished:
        found["latencies"] = latencies(result)
        found["over_time"] = over_time(result.model)
    found["iterations"] = iterations(result)
    found["memory"] = memory(result)
    if any(run.curve for run in result.runs):
        found["curve"] = curve(result)
    return found


def latencies(result: ServingFindings) -> Chart:
    """Return the cumulative shares of TTFT, TPOT, ITL and E2E in four panels, a line per model."""
    data: list[Chart] = []
    names = ("TTFT", "TPOT", "ITL", "E2E")
    for number, run in enumerate(result.runs):
        for panel, (xs, ys) in enumerate(_distributions(run), start=1):
            axis = "" if panel == 1 else str(panel)
            data.append(
                {
                    "type": "scatter", "mode": "lines", "name": run.name,
                    "legendgroup": run.name, "showlegend": panel == 1,
                    "x": xs, "y": ys, "xaxis": f"x{axis}", "yaxis": f"y{axis}",
                    "line": {"color": _LINES[number % len(_LINES)], "width": 2},
                    "hovertext": [f"{percent(y / 100)} up to {readable(x, 's')}"
                                  for x, y in zip(xs, ys, strict=True)],
                    "hoverinfo": "text+name",
                }
            )  # fmt: skip
    layout = plain_layout(
        560,
        grid={"rows": 2, "columns": 2, "pattern": "independent", "ygap": 0.34, "xgap": 0.18},
        legend={"orientation": "h", "y": -0.13},
        showlegend=True,
    )
    for panel, name in enumerate(names, start=1):
        axis = "" if panel == 1 else str(panel)
        layout[f"xaxis{axis}"] = {
            "title": {"text": f"{name}, seconds", "standoff": 4}, "gridcolor": _GRID,
            "rangemode": "tozero",
        }  # fmt: skip
        layout[f"yaxis{axis}"] = {
            "gridcolor": _GRID, "ticksuffix": " %", "automargin": True, "range": [0, 102],
            "nticks": 6,
        }  # fmt: skip
    return {"data": data, "layout": layout}


def _distributions(run: Served) -> list[tuple[list[float], list[float]]]:
    of = counted(run.outcome.requests, run.outcome.run.scenario.serving.workload.warm_up)
    found = [_cumulative(of.ttft_s), _cumulative(of.tpot_s)]
    gaps = run.outcome.gaps
    if gaps is None or not gaps.count:
        found.append(([], []))
    else:
        least, most = percentiles_s(gaps, [0, 99.8])
        places = np.linspace(least, most, _POINTS).tolist()
        shares = shares_up_to(gaps, places)
        found.append((_digits(places), _digits([100 * share for share in shares])))
    return [*found, _cumulative(of.e2e_s)]


def _cumulative(values: Any) -> tuple[list[float], list[float]]:
    if not len(values):
        return [], []
    shares = np.linspace(0, 100, _POINTS + 1)
    return _digits(np.percentile(values, shares).tolist()), _digits(shares.tolist())


def _digits(values: list[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def iterations(result: ServingFindings) -> Chart:
    """Return a decode iteration by group of operators at a few numbers of sequences."""
    blocks = [(pool_name(run, pool), pool) for run in result.runs for pool in run.pools
              if pool.decode]  # fmt: skip
    places: list[float] = []
    labels, names, parts_of = [], [], []
    for number, (name, pool) in enumerate(blocks):
        first = len(places) + number * _BETWEEN
        names.append({**_NAMED, "x": first + (len(pool.decode) - 1) / 2, "text": name})
        for place, (batch, parts) in enumerate(pool.decode.items()):
            places.append(first + place)
            labels.append(f"<b>{batch}</b>" if batch == pool.usage.sequences else f"{batch}")
            parts_of.append(parts)
    layout = plain_layout(
        470,
        barmode="stack",
        xaxis={"tickvals": places, "ticktext": labels},
        yaxis={"title": {"text": "ms per iteration"}, "gridcolor": _GRID, "automargin": True},
        legend={"orientation": "h", "y": -0.24, "traceorder": "normal"},
        annotations=names,
    )
    return {"data": _stacked(parts_of, places), "layout": layout}


_BETWEEN = 0.8
"""Bars of room between two models."""
_NAMED = {"yref": "paper", "y": -0.07, "yanchor": "top", "showarrow": False}


def _stacked(parts_of: list[Groups], places: list[float]) -> list[Chart]:
    data = []
    for name, colour in _GROUPS.items():
        values = [parts.get(name, 0.0) for parts in parts_of]
        if not any(values):
            continue
        shown = [
            f"{name}: {readable(s, 's')}, {percent(s / sum(parts.values()))}"
            for s, parts in zip(values, parts_of, strict=True)
        ]
        data.append(
            {
                "type": "bar", "name": name, "x": places, "width": 0.8,
                "y": _digits([1e3 * s for s in values]),
                "hovertext": shown, "hoverinfo": "text", "marker": {"color": colour},
            }
        )  # fmt: skip
    return data


def pool_name(run: Served, pool: PoolServed) -> str:
    """Return what a pool of a model is called on an axis."""
    short = run.name.replace("dense twin of ", "dense twin of<br>")
    return short if pool.run.name == "all" else f"{short}<br>{pool.run.name}"


def memory(result: ServingFindings) -> Chart:
    """Return the memory of the fullest device of each pool as stacked bars, with its capacity."""
    found = [(pool_name(run, pool), pool.memory) for run in result.runs for pool in run.pools]
    names = [name for name, _ in found]
    data = []
    for part, colour in _MEMORY.items():
        sizes = [one.parts_bytes.get(part, 0.0) for _, one in found]
        if any(sizes):
            data.append(
                {
                    "type": "bar", "orientation": "h", "name": part, "y": names[::-1],
                    "x": _digits([size / 2**30 for size in sizes[::-1]]),
                    "hovertext": [f"{part}: {binary(size)}" for size in sizes[::-1]],
                    "hoverinfo": "text", "marker": {"color": colour},
                }
            )  # fmt: skip
    capacity = result.model.memory.capacity_bytes / 2**30
    line = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": capacity, "x1": capacity}
    layout = plain_layout(
        230 + 60 * len(names),
        barmode="stack",
        xaxis={"title": {"text": "GiB per device", "standoff": 6}, "gridcolor": _GRID},
        yaxis={"automargin": True, "ticksuffix": "  "},
        legend={"orientation": "h", "y": -75 / (60 + 60 * len(names)), "traceorder": "normal"},
        shapes=[{**line, "line": {"color": "#c1121f", "dash": "dash", "width": 1.5}}],
        annotations=[
            {
                "x": capacity, "yref": "paper", "y": 1, "yanchor": "bottom", "xanchor": "right",
                "showarrow": False, "text": f"device has {binary(capacity * 2**30)}",
            }
        ],
    )  # fmt: skip
    layout["margin"] = {**layout["margin"], "t": 26}
    return {"data": data, "layout": layout}


def curve(result: ServingFindings) -> Chart:
    """Return throughput per device against throughput per user, a line per model."""
    data = []
    for number, run in enumerate(result.runs):
        points = run.curve
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": run.name,
                "x": _digits([p.output_tokens_per_s_per_user for p in points]),
                "y": _digits([p.output_tokens_per_s_per_device for p in points]),
                "hovertext": [
                    f"{p.concurrency} in flight: TPOT {readable(p.tpot_p50_s, 's')}, "
                    f"TTFT {readable(p.ttft_p50_s, 's')}" for p in points
                ],
                "hoverinfo": "text+x+y+name",
                "line": {"color": _LINES[number % len(_LINES)], "width": 2},
            }
        )  # fmt: skip
    layout = plain_layout(
        430,
        xaxis={
            "title": {"text": "output tokens/s per user (1 / median TPOT)", "standoff": 6},
            "gridcolor": _GRID,
            "rangemode": "tozero",
        },
        yaxis={
            "title": {"text": "output tokens/s per device"}, "gridcolor": _GRID,
            "rangemode": "tozero", "automargin": True,
        },
        legend={"orientation": "h", "y": -0.2},
        showlegend=True,
    )  # fmt: skip
    return {"data": data, "layout": layout}
