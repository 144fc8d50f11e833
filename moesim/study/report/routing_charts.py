"""The pictures of a routing study, as plotly's plain data."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.study.report import routing_traffic_charts as traffic
from moesim.study.report.charts import Chart, plain_layout
from moesim.study.report.routing_drop_tables import chart
from moesim.study.report.routing_drop_tables import drops as token_drops
from moesim.study.report.routing_tables import capacity
from moesim.study.routing_study import RoutingStudy

_NOBODY, _MEAN, _TWICE, _FULL = "#f7fbff", "#4292c6", "#e6894c", "#b2182b"
_MOST = 4.0
"""Times the mean from which on the colour stays that of the fullest."""


def charts(study: RoutingStudy) -> dict[str, Chart]:
    """Return the pictures by name."""
    layers = study.layers
    found = {"experts": heat(study, np.stack([one.drawn.routed for one in layers]), "expert")}
    if study.where.ranks > 1:
        found["ranks"] = heat(study, np.stack([one.placed.rank_rows for one in layers]), "rank")
        plain = np.stack([one.plain.rank_rows for one in layers])
        if study.scenario.routing.placement.rule != "contiguous":
            found["in_order"] = heat(study, plain, "rank")
    found |= {"imbalance": imbalance(study), **traffic.charts(study), "capacity": drops(study)}
    if study.drops.parts:
        found["drops"] = chart(token_drops(study.drops))
    return found


def heat(study: RoutingStudy, rows: NDArray[np.int64], what: str) -> Chart:
    """Return load over mean, a row per layer and a column per expert or rank."""
    mean = np.maximum(rows.mean(axis=1, keepdims=True), 1e-12)
    relative = np.round(rows / mean, 3)
    layers = [f"layer {layer.number}" for layer in study.layers]
    most = max(2.5, min(float(relative.max()), _MOST))
    colours = [[0.0, _NOBODY], [1 / most, _MEAN], [2 / most, _TWICE], [1.0, _FULL]]
    data: list[dict[str, Any]] = [
        {
            "type": "heatmap", "z": relative.tolist(), "y": layers, "colorscale": colours,
            "zmin": 0.0, "zmax": most,
            "colorbar": {"title": {"text": "load / mean"}, "thickness": 14},
            "hovertemplate": f"%{{y}}, {what} %{{x}}: %{{z:.2f}} times the mean<extra></extra>",
        }
    ]  # fmt: skip
    layout = plain_layout(
        140 + max(120, min(900, 14 * len(layers))),
        xaxis={"title": {"text": what}},
        yaxis={"automargin": True, "autorange": "reversed", "ticksuffix": "  "},
    )
    return {"data": data, "layout": layout}


def imbalance(study: RoutingStudy) -> Chart:
    """Return fullest over mean of every layer: experts, ranks as placed, ranks in order."""
    layers = [layer.number for layer in study.layers]
    lines = (
        ("experts", "#4f9bd0", [layer.placed.expert_imbalance for layer in study.layers]),
        ("ranks, experts in order", "#e07a5f", [x.plain.rank_imbalance for x in study.layers]),
        ("ranks, as placed", "#1f7a53", [x.placed.rank_imbalance for x in study.layers]),
    )
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines+markers", "name": name, "x": layers, "y": values,
            "line": {"color": colour}, "marker": {"size": 5},
        }
        for name, colour, values in lines
    ]  # fmt: skip
    layout = plain_layout(
        340,
        xaxis={"title": {"text": "MoE layer"}},
        yaxis={
            "title": {"text": "fullest / mean"},
            "automargin": True,
            "gridcolor": "#e4e7eb",
            "rangemode": "tozero",
        },
        legend={"orientation": "h", "y": -0.25},
    )
    return {"data": data, "layout": layout}


def drops(study: RoutingStudy) -> Chart:
    """Return dropped assignments and empty slots of the first layer over the capacity factor."""
    rows = capacity(study)
    factors = [row["factor"] for row in rows]
    lines = [
        ("dropped, drawn", "#d1495b", "dropped_fraction", "lines+markers"),
        ("empty slots", "#9aa5b1", "capacity_waste_fraction", "lines+markers"),
    ]
    if all(row["expected_dropped_fraction"] is not None for row in rows):
        lines.append(("dropped, expected", "#1f2933", "expected_dropped_fraction", "markers"))
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": mode, "name": name, "x": factors,
            "y": [row[key] for row in rows], "line": {"color": colour},
            "marker": {"size": 8, "symbol": "x" if mode == "markers" else "circle"},
        }
        for name, colour, key, mode in lines
    ]  # fmt: skip
    layout = plain_layout(
        340,
        xaxis={"title": {"text": "capacity factor"}},
        yaxis={
            "tickformat": ".0%",
            "automargin": True,
            "gridcolor": "#e4e7eb",
            "rangemode": "tozero",
        },
        legend={"orientation": "h", "y": -0.25},
    )
    return {"data": data, "layout": layout}
