"""The pictures of a serving report, as plotly's plain data."""

from typing import Any

import numpy as np

from moesim.study.report.charts import plain_layout
from moesim.study.report.words import binary, percent
from moesim.study.serving.findings import Served, ServingFindings
from moesim.study.serving.gap_ranks import percentiles_s, shares_up_to
from moesim.study.serving.metrics import counted
from moesim.study.serving.series import series
from moesim.units import readable

Chart = dict[str, Any]
_GRID = "#e4e7eb"
_LINES = ("#1f7a53", "#1b6ca8", "#b08968", "#d1495b", "#6d597a", "#e9c46a", "#5c677d", "#2a9d8f")
_GROUPS = {
    "attention": "#1b6ca8",
    "projections and norms": "#4f9bd0",
    "dense FFN": "#2a9d8f",
    "experts": "#1f7a53",
    "router": "#8ab17d",
    "exchange of tokens": "#d1495b",
    "all-reduce": "#f28482",
    "embedding": "#9aa5b1",
    "head": "#5c677d",
    "host": "#e9c46a",
}
"""Blue and green compute, red communication, yellow the device waits for the host."""

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
        grid={"rows": 2, "columns": 2, "pattern": "independent", "ygap": 0.32, "xgap": 0.18},
        legend={"orientation": "h", "y": -0.16},
        showlegend=True,
    )
    for panel, name in enumerate(names, start=1):
        axis = "" if panel == 1 else str(panel)
        layout[f"xaxis{axis}"] = {
            "title": {"text": f"{name}, seconds"}, "gridcolor": _GRID, "rangemode": "tozero",
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


def over_time(run: Served) -> Chart:
    """Return who runs and waits, the fill of the cache, and preemptions, over time."""
    rows = series(run.outcome)
    replicas = sorted({row["replica"] for row in rows})[: len(_LINES)]
    panels = ["running", "waiting", "cache_fraction"]
    panels += [name for name in ("preemptions", "prefix_hit_tokens") if any(r[name] for r in rows)]
    titles = {"running": "running", "waiting": "waiting", "cache_fraction": "cache, %",
              "preemptions": "preemptions", "prefix_hit_tokens": "prefix hits, tokens"}  # fmt: skip
    data, layout = [], plain_layout(120 * len(panels) + 70, showlegend=len(replicas) > 1)
    for number, panel in enumerate(panels, start=1):
        axis = "" if number == 1 else str(number)
        scale = 100 if panel == "cache_fraction" else 1
        for replica in replicas:
            own = [row for row in rows if row["replica"] == replica]
            data.append(
                {
                    "type": "scatter", "mode": "lines", "line": {"shape": "hv", "width": 1.5,
                    "color": _LINES[replica % len(_LINES)]}, "name": f"replica {replica}",
                    "legendgroup": f"{replica}", "showlegend": number == 1,
                    "x": _digits([row["time_s"] for row in own]),
                    "y": _digits([scale * row[panel] for row in own]),
                    "xaxis": "x", "yaxis": f"y{axis}",
                }
            )  # fmt: skip
        high = 1 - (number - 1) / len(panels)
        layout[f"yaxis{axis}"] = {
            "title": {"text": titles[panel]}, "domain": [high - 0.86 / len(panels), high],
            "gridcolor": _GRID, "rangemode": "tozero", "automargin": True, "nticks": 4,
        }  # fmt: skip
    layout["xaxis"] = {
        "title": {"text": "seconds"}, "gridcolor": _GRID,
        "anchor": f"y{len(panels) if len(panels) > 1 else ''}",
    }  # fmt: skip
    layout["legend"] = {"orientation": "h", "y": -0.2}
    return {"data": data, "layout": layout}


def iterations(result: ServingFindings) -> Chart:
    """Return a decode iteration by group of operators at a few numbers of sequences."""
    runs = result.runs
    labels: list[list[str]] = [[], []]
    for run in runs:
        labels[0] += [_short(run.name)] * len(run.groups)
        labels[1] += [f"{batch}" for batch in run.groups]
    parts = [parts for run in runs for parts in run.groups.values()]
    data = []
    for name, colour in _GROUPS.items():
        seconds = [one.get(name, 0.0) for one in parts]
        if not any(seconds):
            continue
        shown = [
            f"{name}: {readable(s, 's')}, {percent(s / sum(one.values()))}"
            for s, one in zip(seconds, parts, strict=True)
        ]
        data.append(
            {
                "type": "bar", "name": name, "x": labels,
                "y": _digits([1e3 * s for s in seconds]),
                "hovertext": shown, "hoverinfo": "text", "marker": {"color": colour},
            }
        )  # fmt: skip
    layout = plain_layout(
        470,
        barmode="stack",
        xaxis={"automargin": True},
        yaxis={"title": {"text": "ms per iteration"}, "gridcolor": _GRID, "automargin": True},
        legend={"orientation": "h", "y": -0.3},
    )
    return {"data": data, "layout": layout}


def memory(result: ServingFindings) -> Chart:
    """Return the memory of the fullest device as stacked bars, with the device's capacity."""
    names = [_short(run.name) for run in result.runs]
    data = []
    for part, colour in _MEMORY.items():
        sizes = [run.memory.parts_bytes.get(part, 0.0) for run in result.runs]
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
        xaxis={"title": {"text": "GiB per device"}, "gridcolor": _GRID},
        yaxis={"automargin": True, "ticksuffix": "  "},
        legend={"orientation": "h", "y": -75 / (60 + 60 * len(names))},
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
            "title": {"text": "output tokens/s per user (1 / median TPOT)"}, "gridcolor": _GRID,
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


def _short(name: str) -> str:
    return name.replace("dense twin of ", "dense twin of<br>")
