"""Who is dropped in a routing study: as a table, a picture and lines in the terminal."""

from typing import Any

from rich.table import Table

from moesim.study.report.charts import Chart, plain_layout
from moesim.study.report.words import percent
from moesim.study.routing_drops import DropPart, TokenDrops

Rows = list[dict[str, Any]]


def drops(found: TokenDrops) -> Rows:
    """Return what each part of the choices lost."""
    return [_row(part) for part in found.parts]


def _row(part: DropPart) -> dict[str, Any]:
    lost = part.lost
    return {
        "by": part.by,
        "part": part.part,
        "start_fraction": part.start_fraction,
        "end_fraction": part.end_fraction,
        "routed": lost.wanted,
        "dropped": lost.dropped,
        "dropped_fraction": lost.dropped / lost.wanted if lost.wanted else 0.0,
        "expected_dropped_fraction": part.expected_fraction,
        "dropped_weight_fraction": lost.weight_fraction,
        "residual_tokens_fraction": None if part.by == "choice" else lost.residual_fraction,
    }


def chart(rows: Rows) -> Chart:
    """Return the dropped share along the routing group, along the sequence and by choice."""
    data = [
        *_lines(rows, "position", ("position in the routing group", "#d1495b")),
        *_lines(rows, "sequence", ("position in the sequence", "#4f9bd0")),
        *_bars([row for row in rows if row["by"] == "choice"]),
    ]
    bars = any(one["type"] == "bar" for one in data)
    layout = plain_layout(
        340,
        xaxis={
            "title": {"text": "position"}, "tickformat": ".0%", "range": [0, 1],
            "domain": [0, 0.62 if bars else 1],
        },
        xaxis2={
            "title": {"text": "choice"}, "domain": [0.68, 1], "anchor": "y", "type": "category",
        },
        yaxis={
            "title": {"text": "dropped"}, "tickformat": ".1%", "automargin": True,
            "gridcolor": "#e4e7eb", "rangemode": "tozero",
        },
        legend={"orientation": "h", "y": -0.25},
    )  # fmt: skip
    return {"data": data, "layout": layout}


def _bars(choices: Rows) -> list[dict[str, Any]]:
    if len(choices) < 2:
        return []
    return [
        {
            "type": "bar", "name": "by choice", "xaxis": "x2", "yaxis": "y",
            "x": [str(row["part"]) for row in choices],
            "y": [row["dropped_fraction"] for row in choices], "marker": {"color": "#8ab17d"},
        }
    ]  # fmt: skip


def _lines(every: Rows, by: str, look: tuple[str, str]) -> list[dict[str, Any]]:
    """Return the lines of one kind of position, drawn and expected; look: name and colour."""
    rows, (name, colour) = [row for row in every if row["by"] == by], look
    if not rows:
        return []
    x = [(row["start_fraction"] + row["end_fraction"]) / 2 for row in rows]
    line: dict[str, Any] = {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": x,
        "y": [row["dropped_fraction"] for row in rows],
        "line": {"color": colour}, "marker": {"size": 6},
    }  # fmt: skip
    expected = [row["expected_dropped_fraction"] for row in rows]
    if any(value is None for value in expected):
        return [line]
    closed = {
        "type": "scatter", "mode": "markers", "name": f"{name}, closed form", "x": x,
        "y": expected, "marker": {"size": 8, "symbol": "x", "color": "#1f2933"},
    }  # fmt: skip
    return [line, closed]


def terminal(rows: Rows) -> Table:
    """Return first and last twentieth of the group, each choice, and all of it."""
    table = Table(title="First MoE layer: who is dropped", box=None, title_justify="left")
    for name in ("", "dropped", "closed form", "of the weights", "tokens without expert"):
        table.add_column(name, justify="left" if not name else "right")
    for name, row in _named(rows):
        expected = row["expected_dropped_fraction"]
        table.add_row(
            name,
            percent(row["dropped_fraction"]),
            "-" if expected is None else percent(expected),
            percent(row["dropped_weight_fraction"]),
            "-" if row["by"] == "choice" else percent(row["residual_tokens_fraction"]),
        )
    return table


def _named(rows: Rows) -> list[tuple[str, dict[str, Any]]]:
    along = [row for row in rows if row["by"] == "position"]
    ends = [("first tokens of a group", along[0]), ("last tokens of a group", along[-1])]
    choices = [row for row in rows if row["by"] == "choice"]
    named = [(f"choice {row['part']}", row) for row in choices if len(choices) > 1]
    return [*(("all", row) for row in rows if row["by"] == "all"), *ends, *named]
