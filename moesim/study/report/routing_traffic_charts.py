"""Pictures of what placement and routing cost: bytes between ranks, waiting, rebalancing."""

from typing import Any

import numpy as np

from moesim.moe.straggler import Straggler
from moesim.study.report.charts import Chart, plain_layout
from moesim.study.routing_rebalancing import Rebalanced
from moesim.study.routing_study import RoutingStudy
from moesim.study.routing_traffic import Traffic

_PALE, _MIDDLE, _DARK = "#f7fbff", "#4292c6", "#08306b"
_LEGEND = {"orientation": "h", "y": -0.25}

TITLES = {
    "byte_matrix": "Bytes from rank to rank",
    "stragglers": "Waiting for the fullest rank",
    "rebalancing": "Placed anew while loads drift",
}

EXPLAINED = {
    "byte_matrix": "What the scenario's dispatcher sends in the first MoE layer on the way to the "
    "experts, for one micro-batch of every rank; the way back is its mirror image. The table "
    "byte_matrix has all dispatchers, and what uniform choices would send.",
    "stragglers": "Seconds of the experts' forward pass on the mean rank, and how much longer the "
    "fullest rank takes: all ranks wait for it in every layer.",
    "rebalancing": "Fullest rank over mean, averaged over the MoE layers, where experts are placed "
    "anew at intervals by the loads of the step before, and where the first such placement stays.",
}


def charts(study: RoutingStudy) -> dict[str, Chart]:
    """Return the pictures by name."""
    found: dict[str, Chart] = {}
    if study.traffic.ranks > 1:
        found["byte_matrix"] = byte_matrix(study.traffic)
        if study.waits.seconds is not None:
            found["stragglers"] = stragglers(study, study.waits.seconds)
    if study.rebalanced is not None:
        found["rebalancing"] = rebalancing(study.rebalanced)
    return found


def byte_matrix(found: Traffic) -> Chart:
    """Return the dispatch bytes from rank to rank under the scenario's dispatcher."""
    own = next(one for one in found.sendings if one.dispatcher == found.own)
    what = "rank" if found.ranks_per_part == 1 else f"{found.ranks_per_part} ranks"
    data: list[dict[str, Any]] = [
        {
            "type": "heatmap", "z": np.round(own.dispatch_bytes / 2**20, 3).tolist(),
            "colorscale": [[0.0, _PALE], [0.5, _MIDDLE], [1.0, _DARK]], "zmin": 0.0,
            "colorbar": {"title": {"text": "MiB"}, "thickness": 14},
            "hovertemplate": f"{what} %{{y}} to %{{x}}: %{{z:.3g}} MiB<extra></extra>",
        }
    ]  # fmt: skip
    layout = plain_layout(
        560,
        xaxis={"title": {"text": f"receiver ({what})"}, "constrain": "domain"},
        yaxis={
            "title": {"text": f"sender ({what})"}, "automargin": True, "autorange": "reversed",
            "scaleanchor": "x", "constrain": "domain",
        },
    )  # fmt: skip
    return {"data": data, "layout": layout}


def stragglers(study: RoutingStudy, seconds: Straggler) -> Chart:
    """Return the mean and the lost seconds of every layer as stacked bars."""
    layers = [layer.number for layer in study.layers]
    lost = seconds.maxima - seconds.means
    bars = (("mean rank", "#1f7a53", seconds.means), ("waiting", "#e9c46a", lost))
    data: list[dict[str, Any]] = [
        {
            "type": "bar", "name": name, "x": layers, "y": (values * 1e3).tolist(),
            "marker": {"color": colour},
            "hovertemplate": f"layer %{{x}}, {name}: %{{y:.3g}} ms<extra></extra>",
        }
        for name, colour, values in bars
    ]  # fmt: skip
    return {"data": data, "layout": _layout("MoE layer", "milliseconds", barmode="stack")}


def rebalancing(found: Rebalanced) -> Chart:
    """Return the imbalance of the steps looked at, placed anew and not."""
    lines = (
        ("first placement kept", "#e07a5f", found.kept_imbalances),
        ("placed anew", "#1f7a53", found.imbalances),
    )
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines+markers", "name": name, "x": list(found.steps),
            "y": list(values), "line": {"color": colour}, "marker": {"size": 5},
        }
        for name, colour, values in lines
    ]  # fmt: skip
    return {"data": data, "layout": _layout("step", "fullest / mean")}


def _layout(across: str, up: str, **more: Any) -> dict[str, Any]:
    return plain_layout(
        340,
        xaxis={"title": {"text": across}},
        yaxis={
            "title": {"text": up}, "automargin": True, "gridcolor": "#e4e7eb",
            "rangemode": "tozero",
        },
        legend=_LEGEND,
        **more,
    )  # fmt: skip
