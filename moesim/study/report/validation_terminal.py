"""A validation in the terminal: every case in a line, by source; what was skipped; the groups."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from moesim.study.report.validation_words import (
    BIAS,
    by_column,
    by_reason,
    by_source,
    number,
    pair,
    plain,
    short_metric,
    signed,
)
from moesim.study.validate.expected import Changes
from moesim.study.validate.inference.judged import cases_that_ran, falls
from moesim.study.validate.record import Record
from moesim.study.validate.scores import Score, grouped, headline, right_signs


def print_validation(records: Sequence[Record], console: Console) -> None:
    """Print cases, what was skipped, groups and head figures."""
    ran = [one for one in records if one.status == "ran"]
    if ran:
        console.print(_cases(ran))
    for reason, ids in by_reason(records).items():
        console.print(f"\n[bold]Skipped[/bold] ({len(ids)}): {reason}", highlight=False)
        console.print(", ".join(ids), style="dim", highlight=False)
    console.print()
    console.print(_groups(records))
    console.print(BIAS, style="dim", highlight=False)
    for quality, (done, total) in cases_that_ran(records).items():
        console.print(f"{done} of {total} inference cases of quality {quality} ran.")
    falling, pairs = falls(records)
    if pairs:
        console.print(
            f"{falling} of {pairs} ratios of MoE over dense change with load as measured."
        )
    right, compared = right_signs(records)
    if compared:
        console.print(f"{right} of {compared} single changes go the measured way.")


def print_changes(changes: Changes, console: Console) -> None:
    """Print what moved against the recorded errors; nothing where nothing did."""
    for title, lines in (
        ("Worse than recorded", changes.worse),
        ("Better than recorded", changes.better),
        ("Not recorded yet", changes.new),
    ):
        if lines:
            console.print(f"[bold]{title}[/bold]", highlight=False)
            for line in lines:
                console.print(f"  {line}", highlight=False, soft_wrap=True)


def _cases(ran: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("case", overflow="fold")
    table.add_column("metric", no_wrap=True)
    for name in ("predicted", "measured", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    for source, found in by_source(ran).items():
        table.add_row(f"[bold]{source}[/bold]")
        for one in (one for one in found if one.row is None):
            figures = (number(one.predicted), number(one.measured), signed(one.error))
            table.add_row(pair(one.case), short_metric(one.metric), *figures)
        for (case, metric), score in by_column(found).items():
            figures = (f"{score.ran} rows", plain(score.median), signed(score.bias))
            table.add_row(case, metric, *figures)
    return table


def _groups(records: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("ran", "median", "p90", "bias"):
        table.add_column(name, justify="right", no_wrap=True)
    for title, found in grouped(records):
        _section(table, title, found)
    _section(table, "Quality A and B", headline(records))
    return table


def _section(table: Table, title: str, found: Iterable[Score]) -> None:
    table.add_row(f"[bold]{title}[/bold]")
    for one in found:
        errors = (plain(one.median), plain(one.p90), signed(one.bias))
        table.add_row(f"  {' / '.join(one.name)}", f"{one.ran} of {one.total}", *errors)
