"""A validation in the terminal: every case in a line, then the groups."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from moesim.study.report.words import percent
from moesim.study.validate.record import Record
from moesim.study.validate.scores import DIMENSIONS, Score, headline, right_signs, scores


def print_validation(records: Sequence[Record], console: Console) -> None:
    """Print cases, groups and head figures."""
    console.print(_cases(records))
    for name, key in DIMENSIONS.items():
        console.print()
        console.print(_scores(f"By {name}", scores(records, key)))
    console.print()
    console.print(_scores("Quality A and B", headline(records)))
    right, ran = right_signs(records)
    if ran:
        console.print(f"{right} of {ran} single changes go the measured way.")


def _cases(records: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("case", overflow="fold")
    table.add_column("metric")
    for name in ("predicted", "measured", "error"):
        table.add_column(name, justify="right")
    for one in records:
        if one.status == "ran":
            values = (f"{one.predicted:.4g}", f"{one.measured:.4g}", signed(one.error))
            table.add_row(one.case, one.metric, *values)
        else:
            table.add_row(one.case, f"[dim]skipped: {one.reason}[/dim]", "", "", "")
    return table


def _scores(title: str, found: Sequence[Score]) -> Table:
    table = Table(title=title, box=None, title_justify="left", pad_edge=False)
    table.add_column("")
    for name in ("ran", "median", "p90", "bias"):
        table.add_column(name, justify="right")
    for one in found:
        values = [
            "-" if value is None else text(value)
            for value, text in ((one.median, percent), (one.p90, percent), (one.bias, signed))
        ]
        table.add_row(" / ".join(one.name), f"{one.ran} of {one.total}", *values)
    return table


def signed(value: float | None) -> str:
    """Return a relative error with its sign."""
    return "-" if value is None else f"{value:+.1%}"
