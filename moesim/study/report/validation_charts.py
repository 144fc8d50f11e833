"""The pictures of a validation: predicted over measured, and errors source by source."""

from collections.abc import Sequence
from typing import Any

from moesim.study.report.charts import Chart, plain_layout
from moesim.study.report.validation_words import heading, short_metric
from moesim.study.validate.record import Record
from moesim.study.validate.scores import what

_COLOURS = {"dense": "#4f9bd0", "moe": "#d1495b"}
_SYMBOLS = {"step_time_s": "diamond", "examples_per_s": "square"}


def parity(records: Sequence[Record]) -> Chart:
    """Return predicted against measured speeds, on logarithmic axes."""
    ran = [one for one in records if one.predicted and one.measured and what(one.metric) == "speed"]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers",
            "name": f"{cls or 'other'}, {short_metric(metric)}",
            "x": [one.measured for one in found], "y": [one.predicted for one in found],
            "text": [one.case for one in found],
            "hovertemplate": "%{text}<br>measured %{x:.4g}, predicted %{y:.4g}<extra></extra>",
            "marker": {"size": 7, "opacity": 0.7, "color": _COLOURS.get(cls, "#7b8794"),
                       "symbol": _SYMBOLS.get(metric, "circle")},
        }
        for cls, metric in sorted({(one.cls, one.metric) for one in ran})
        for found in [[one for one in ran if (one.cls, one.metric) == (cls, metric)]]
    ]  # fmt: skip
    ends = [one.measured for one in ran if one.measured] or [1.0]
    low, high = min(ends) / 2, max(ends) * 2
    for factor, dash in ((1.0, "solid"), (1.2, "dot"), (1 / 1.2, "dot")):
        data.append(
            {
                "type": "scatter", "mode": "lines", "x": [low, high],
                "y": [low * factor, high * factor], "showlegend": False, "hoverinfo": "skip",
                "line": {"color": "#1f2933", "width": 1, "dash": dash},
            }
        )  # fmt: skip
    layout = plain_layout(
        560,
        xaxis={"title": {"text": "measured"}, "type": "log", "gridcolor": "#e4e7eb"},
        yaxis={"title": {"text": "predicted"}, "type": "log", "gridcolor": "#e4e7eb",
               "automargin": True},
        legend={"orientation": "h", "y": -0.2},
    )  # fmt: skip
    return {"data": data, "layout": layout}


def spread(records: Sequence[Record]) -> Chart:
    """Return the signed errors of every source as a strip of points."""
    ran = [one for one in records if one.error is not None]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": cls or "other",
            "x": [one.error for one in found], "y": [heading(one) for one in found],
            "text": [f"{one.case}: {one.metric}" for one in found],
            "hovertemplate": "%{text}<br>%{x:+.1%}<extra></extra>",
            "marker": {"size": 6, "opacity": 0.6, "color": _COLOURS.get(cls, "#7b8794")},
        }
        for cls in sorted({one.cls for one in ran})
        for found in [[one for one in ran if one.cls == cls]]
    ]  # fmt: skip
    sources = len({heading(one) for one in ran})
    layout = plain_layout(
        180 + 24 * sources,
        xaxis={"title": {"text": "(predicted - measured) / measured"}, "tickformat": "+.0%",
               "gridcolor": "#e4e7eb", "zeroline": True},
        yaxis={"automargin": True},
        legend={"orientation": "h", "y": -0.2},
    )  # fmt: skip
    return {"data": data, "layout": layout}
