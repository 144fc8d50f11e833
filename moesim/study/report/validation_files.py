"""A validation as files: records as JSON and CSV, scores as CSV, a page with the parity plot."""

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from moesim.study.report import files
from moesim.study.report.charts import Chart, plain_layout
from moesim.study.report.page import document
from moesim.study.report.words import percent
from moesim.study.validate.record import Record, as_json
from moesim.study.validate.scores import DIMENSIONS, Score, headline, scores, what
from moesim.version import __version__


def contents(records: Sequence[Record]) -> dict[str, str]:
    """Return the text of every file, by file name."""
    rows = [as_json(one) for one in records]
    flat = [row | {"assumed": "; ".join(row["assumed"])} for row in rows]
    summed = {
        "moesim_version": __version__,
        "headline": [_row(one) for one in headline(records)],
        "groups": {
            name: [_row(one) for one in scores(records, key)] for name, key in DIMENSIONS.items()
        },
    }
    groups = [
        {"by": name, **_row(one)}
        for name, key in DIMENSIONS.items()
        for one in scores(records, key)
    ]
    return {
        files.MARKER: files.to_json(summed) + "\n",
        "records.json": files.to_json(rows) + "\n",
        "records.csv": files.to_csv(flat),
        "groups.csv": files.to_csv(groups),
        "report.html": html(records),
    }


def _row(score: Score) -> dict[str, Any]:
    return asdict(score) | {"name": " / ".join(score.name)}


def save(records: Sequence[Record], directory: Path) -> Path:
    """Write all files to `directory`; return it."""
    return files.write(lambda: contents(records), directory)


def html(records: Sequence[Record]) -> str:
    """Return the page: head figures, the parity plot, groups, and every case."""
    pictures = {"parity": parity(records), "errors": spread(records)}
    sections = [
        "<header><h1>Validation</h1><p class='lead'>Predictions beside what others measured; "
        "nothing was fitted to a case.</p></header>",
        _scores("Quality A and B", headline(records)),
        _picture("parity", "Predicted over measured", "Speeds on one pair of axes: steps in "
                 "seconds, the rest as rates. On the line the two agree; the dotted lines are "
                 "20 % off."),
        _picture("errors", "Errors", "Signed errors of all records, source by source."),
        *(_scores(f"By {name}", scores(records, key)) for name, key in DIMENSIONS.items()),
        _cases(records),
    ]  # fmt: skip
    return document("Validation", sections, pictures)


def _picture(name: str, title: str, note: str) -> str:
    return (
        f'<section><h2>{title}</h2><p class="note">{note}</p>'
        f'<div id="{name}" class="picture"></div></section>'
    )


def _scores(title: str, found: Sequence[Score]) -> str:
    rows = "".join(
        f"<tr><th>{escape(' / '.join(one.name))}</th><td>{one.ran} of {one.total}</td>"
        + "".join(f"<td>{_share(value)}</td>" for value in (one.median, one.p90, one.bias))
        + "</tr>"
        for one in found
    )
    head = "<th></th><th>ran</th><th>median</th><th>p90</th><th>bias</th>"
    return (
        f"<section><h2>{escape(title)}</h2><table class='figures'><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _cases(records: Sequence[Record]) -> str:
    rows = "".join(
        f"<tr><th>{escape(one.case)}</th><td>{escape(one.metric)}</td>"
        f"<td>{_number(one.predicted)}</td><td>{_number(one.measured)}</td>"
        f"<td>{_share(one.error)}</td><td>{escape(one.reason or '; '.join(one.assumed))}</td></tr>"
        for one in records
    )
    head = "<th>case</th><th>metric</th><th>predicted</th><th>measured</th><th>error</th><th></th>"
    return (
        "<section><h2>Every case</h2><details><summary>Show all, with what was assumed or why it "
        f"was skipped</summary><table class='sources'><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></details></section>"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


_COLOURS = {"dense": "#4f9bd0", "moe": "#d1495b"}


def parity(records: Sequence[Record]) -> Chart:
    """Return predicted against measured speeds, on logarithmic axes."""
    ran = [one for one in records if one.predicted and one.measured and what(one.metric) == "speed"]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": cls or "other",
            "x": [one.measured for one in found], "y": [one.predicted for one in found],
            "text": [f"{one.case}: {one.metric}" for one in found],
            "hovertemplate": "%{text}<br>measured %{x:.4g}, predicted %{y:.4g}<extra></extra>",
            "marker": {"size": 7, "opacity": 0.7, "color": _COLOURS.get(cls, "#7b8794")},
        }
        for cls in sorted({one.cls for one in ran})
        for found in [[one for one in ran if one.cls == cls]]
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
    from moesim.study.validate.scores import source_name

    ran = [one for one in records if one.error is not None]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "markers", "name": cls or "other",
            "x": [one.error for one in found], "y": [source_name(one.source) for one in found],
            "text": [f"{one.case}: {one.metric}" for one in found],
            "hovertemplate": "%{text}<br>%{x:+.1%}<extra></extra>",
            "marker": {"size": 6, "opacity": 0.6, "color": _COLOURS.get(cls, "#7b8794")},
        }
        for cls in sorted({one.cls for one in ran})
        for found in [[one for one in ran if one.cls == cls]]
    ]  # fmt: skip
    sources = len({source_name(one.source) for one in ran})
    layout = plain_layout(
        180 + 24 * sources,
        xaxis={"title": {"text": "(predicted - measured) / measured"}, "tickformat": "+.0%",
               "gridcolor": "#e4e7eb", "zeroline": True},
        yaxis={"automargin": True},
        legend={"orientation": "h", "y": -0.2},
    )  # fmt: skip
    return {"data": data, "layout": layout}
