"""`moesim validate`: predictions beside published measurements."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.guard import DOES_NOT_FIT, Debug, Quiet, guard
from moesim.cli.options import command_of

if TYPE_CHECKING:
    from rich.console import Console

    from moesim.spec.cases import Case, CaseFile
    from moesim.study.validate.record import Record
    from moesim.study.validate.scores import Score

_WIDTH = 120
"""Columns of what goes into a file or a pipe."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command, one field each."""

    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Case files; left out: those of moesim itself."),
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="TEXT", help="Only cases whose id contains this."),
    ] = None
    core: Annotated[
        bool, typer.Option("--core", help="Only the small representative set (core: true).")
    ] = False
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=256, help="Processes to simulate with.")
    ] = 2
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the records to FILE too.")
    ] = None
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write tables and the page to DIR.")
    ] = None
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE", help="Write the errors of every group to FILE."),
    ] = None
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            metavar="FILE",
            help="Exit code 3 when a group is more than 1 percentage point worse than in FILE.",
        ),
    ] = None
    quiet: Quiet = False
    debug: Debug = False


@command_of(Options)
def validate(options: Options) -> None:
    """Simulate measured cases and show how far off the predictions are.

    Every case is listed: compared, or skipped with the reason. Exit code 3 only with --check.
    """
    with guard(debug=options.debug):
        from moesim.study.validate.expected import read_expected

        expected = None if options.check is None else read_expected(options.check)
        records = _records(options)
        _write(records, options)
        if not options.quiet:
            from moesim.study.report.validation_terminal import print_validation

            print_validation(records, _console())
        if expected is not None and not _as_recorded(expected, records):
            raise typer.Exit(DOES_NOT_FIT)


def _write(records: "list[Record]", options: Options) -> None:
    if options.json_file is not None:
        from moesim.study.report.files import to_json
        from moesim.study.validate.record import as_json

        text = to_json([as_json(one) for one in records])
        options.json_file.write_text(text + "\n", encoding="utf-8")
    if options.out is not None:
        from moesim.study.report.validation_files import save

        save(records, options.out)
    if options.record is not None:
        from moesim.study.validate.expected import as_csv

        options.record.write_text(as_csv(records), encoding="utf-8", newline="\n")


def _as_recorded(expected: "dict[tuple[str, ...], Score]", records: "list[Record]") -> bool:
    from moesim.study.report.validation_terminal import print_changes
    from moesim.study.validate.expected import changes

    found = changes(expected, records)
    print_changes(found, _console(stderr=True))
    return not found.worse


def _console(*, stderr: bool = False) -> "Console":
    """Return where to print: as wide as the terminal; into a file or pipe as wide as a case."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_WIDTH)


def _records(options: Options) -> "list[Record]":
    from moesim.cli.progress import progress
    from moesim.errors import Problem, ScenarioError
    from moesim.spec.cases import read_cases
    from moesim.study.validate.run import validate as compare

    files = [read_cases(path) for path in options.paths or _own()]
    chosen = [(file, _chosen(file, options)) for file in files]
    if not any(cases for _, cases in chosen):
        raise ScenarioError([Problem("", "no case is left: --only and --core leave none")])
    records = []
    for file, cases in chosen:
        with progress(f"validating {file.path.name}") as tell:
            records += compare(file, cases, workers=options.workers, progress=tell)
    return records


def _chosen(file: "CaseFile", options: Options) -> "list[Case]":
    return [
        case
        for case in file.cases
        if (not options.only or any(text in case.id for text in options.only))
        and (not options.core or case.words.get("core") is True)
    ]


def _own() -> list[Path]:
    from moesim.errors import Problem, ScenarioError
    from moesim.spec.shipped import shipped

    found = sorted((shipped("validation") / "cases").glob("*.yaml"))
    if not found:
        raise ScenarioError([Problem("", "moesim brings no cases yet: name a FILE")])
    return found
