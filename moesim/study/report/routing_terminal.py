"""A routing study in the terminal."""

from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from moesim.study.report.routing_load_page import TABLES, load_rows
from moesim.study.report.routing_words import figures, verdict
from moesim.study.report.words import percent


def print_study(summed: dict[str, Any], console: Console) -> None:
    """Print the summary of a study."""
    console.print(Panel("\n".join(verdict(summed)), title=f"{summed['name']}: routing"))
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in figures(summed):
        table.add_row(name, value)
    console.print(table)
    console.print()
    console.print(" ".join(summed["load"]), style="dim", highlight=False)
    console.print()
    console.print(_capacity(summed["capacity"]))
    for name, title in TABLES.items():
        if summed.get(name):
            console.print()
            console.print(load_table(title, load_rows(name, summed[name])))


def _capacity(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="First MoE layer, by capacity factor", box=None, title_justify="left")
    for name in ("factor", "dropped", "closed form", "empty slots"):
        table.add_column(name, justify="right")
    for row in rows:
        expected = row["expected_dropped_fraction"]
        table.add_row(
            f"{row['factor']:g}",
            percent(row["dropped_fraction"]),
            "-" if expected is None else percent(expected),
            percent(row["capacity_waste_fraction"]),
        )
    return table


def load_table(title: str, rows: list[tuple[str, ...]]) -> Table:
    """Return a table whose first row are the titles of its columns."""
    table = Table(title=title, box=None, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows[1:]:
        table.add_row(*row)
    return table
