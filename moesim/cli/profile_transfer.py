"""`moesim profile transfer`: how well curves of one device predict another."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.guard import Debug, guard
from moesim.cli.options import command_of
from moesim.cli.progress import progress
from moesim.cli.tables import print_table
from moesim.errors import CalibrationError

if TYPE_CHECKING:
    from moesim.calibrate.measurements import Group
    from moesim.calibrate.transfer import Errors, Transfer
    from moesim.calibrate.transfer_table import Distance, Line

Tables = Annotated[
    list[Path], typer.Argument(help="Measurement tables (.csv, .csv.gz, .parquet), or directories.")
]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command, one field each."""

    tables: Tables
    donors: Annotated[
        list[str],
        typer.Option("--from", metavar="DEVICE", help="Whose curves are lent; repeatable."),
    ]
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--to", metavar="DEVICE", help="Who borrows; repeatable; left out, all of its maker."
        ),
    ] = None
    shapes: Annotated[
        int,
        typer.Option(min=0, max=100_000, help="Random shapes of the second fit; 0 leaves it out."),
    ] = 40
    draws: Annotated[int, typer.Option(min=1, max=1000, help="Random choices of these shapes.")] = 5
    out: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all rows as JSON.")
    ] = None
    debug: Debug = False


@command_of(Options)
def transfer(options: Options) -> None:
    """State how well the curves of one device predict another: median/p90 error in percent.

    roofline: the datasheet's bound plus the floor of what was measured. physics: the donor's
    parameters with the other datasheet. datasheet: the same with the donor's residual surface.
    refit: fitted anew to random shapes, at most half of the rows, and judged on the others; the
    median over the draws. Each line is the median over kernel variants. Of more than 3,000 rows a
    random part is judged, the same in each run.
    """
    with guard(debug=options.debug):
        _transfer(options)


def _transfer(options: Options) -> None:
    from moesim.calibrate.transfer import Plan
    from moesim.calibrate.transfer import transfer as judge
    from moesim.calibrate.transfer_table import by_distance, by_operator

    plan = Plan(
        donors=tuple(options.donors), targets=tuple(options.targets or ()),
        shapes=options.shapes, draws=options.draws,
    )  # fmt: skip
    if options.out is not None:
        options.out.open("a", encoding="utf-8").close()  # found out before minutes of work
    with progress("transferring") as told:
        rows = judge(_groups(options.tables), plan, told)
    if not rows:
        raise CalibrationError(
            "nothing to compare: no other device of the same maker has the same operator, library "
            "and number type in these tables"
        )
    if options.out is not None:
        text = json.dumps([row.record() for row in rows], indent=1)
        options.out.write_text(text + "\n", encoding="utf-8")
    print_table([_shown(line) for line in by_operator(rows)], right=_FIGURES)
    if classes := by_distance(rows):
        typer.echo("\nmedian error in percent by distance; gained: beyond that on the donor")
        print_table([_class(one) for one in classes], right=_CLASS_FIGURES)
    _tell_left_out(rows)


def _groups(tables: list[Path]) -> "list[Group]":
    from moesim.calibrate.measurements import joined, read_groups, table_files

    found: list[Group] = []
    for file in table_files(tables):
        groups, skipped = read_groups(file)
        found += groups
        for one in skipped:
            if not one.hardware:  # a whole file
                typer.echo(f"left out: {one.operator}: {one.reason}", err=True)
    return joined(found)


_FIGURES = ("octaves", "variants", "rows", "roofline", "physics", "datasheet", "refit")
_CLASS_FIGURES = ("octaves", "lines", "on the donor", "physics", "datasheet", "gained")


def _shown(line: "Line") -> dict[str, object]:
    return {
        "operator": line.family,
        "library": line.library,
        "dtype": line.dtype,
        "from": line.donor,
        "to": line.target,
        "octaves": f"{line.octaves:.2f}",
        "variants": line.variants,
        "rows": line.rows,
        "roofline": _pair(line.roofline),
        "physics": _pair(line.physics),
        "datasheet": _pair(line.datasheet),
        "refit": _pair(line.refit),
    }


def _pair(errors: "Errors | None") -> str:
    return "" if errors is None else f"{100 * errors.median:.1f}/{100 * errors.p90:.1f}"


def _class(one: "Distance") -> dict[str, object]:
    return {
        "operators": one.table,
        "octaves": f"{one.octaves:.2f}",
        "lines": one.lines,
        "on the donor": f"{100 * one.fit:.1f}",
        "physics": f"{100 * one.physics:.1f}",
        "datasheet": f"{100 * one.datasheet:.1f}",
        "gained": f"{100 * one.gained:.1f}",
    }


def _tell_left_out(rows: "list[Transfer]") -> None:
    for row in rows:
        if row.reason:
            named = " ".join(part for part in (row.family, row.dtype, row.variant) if part)
            typer.echo(
                f"left out: {named} with {row.library} from {row.donor} to {row.target}: "
                f"{row.reason}",
                err=True,
            )
