"""A routing study in the terminal."""

from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from moesim.study.report.routing_drop_tables import terminal as drops
from moesim.study.report.routing_load_page import TABLES, load_rows
from moesim.study.report.routing_words import expected_words, figures, verdict
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
    if summed["drops"]:
        console.print()
        console.print(drops(summed["drops"]))
    for name, title in TABLES.items():
        if summed.get(name) and name != "granularity":  # of the page: it is no result of the load
            console.print()
            console.print(load_table(title, load_rows(name, summed[name])))


def _capacity(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="First MoE layer, by capacity factor", box=None, title_justify="left")
    for name in ("factor", "dropped", "expected", "empty slots"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row['factor']:g}",
            percent(row["dropped_fraction"]),
            expected_words(row),
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
