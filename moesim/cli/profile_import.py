"""`moesim profile import`: turn logs and traces of other tools into measurement tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.guard import Debug, guard
from moesim.cli.options import command_of
from moesim.cli.tables import print_table
from moesim.errors import CalibrationError

if TYPE_CHECKING:
    from moesim.calibrate.importers.facts import Facts
    from moesim.calibrate.importers.formats import FileRead


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command, one field each."""

    files: Annotated[list[Path], typer.Argument(help="Logs, JSON files or traces, plain or gzip.")]
    hardware: Annotated[
        str, typer.Option(metavar="NAME", help="The device: a name out of `moesim hardware`.")
    ]
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the tables go.")]
    format: Annotated[
        str, typer.Option(metavar="NAME", help="nccl-tests, deepep, torch-trace or auto.")
    ] = "auto"
    library: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What ran; left out: nccl, deepep or pytorch."),
    ] = None
    library_version: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Its version; left out, what the file says.")
    ] = None
    num_gpus: Annotated[
        int | None, typer.Option(min=1, help="Ranks in all; left out, what the file says.")
    ] = None
    num_nodes: Annotated[
        int | None, typer.Option(min=1, help="Nodes; left out, the hosts that the file names.")
    ] = None
    network: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Between nodes: '8x400 Gb/s per node', or none."),
    ] = None
    interconnect: Annotated[
        str, typer.Option(metavar="NAME", help="Inside a node: nvlink, pcie; or nvlink_nvl72.")
    ] = "unknown"
    shape: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COLUMN=N", help="What a log leaves out: num_experts=256."),
    ] = None
    debug: Debug = False


@command_of(Options)
def import_tables(options: Options) -> None:
    """Turn output of nccl-tests, DeepEP's tests or torch.profiler into measurement tables.

    Writes DIR/collectives.csv, moe_alltoall.csv, gemm.csv, attention_prefill.csv and
    attention_decode.csv as far as the files hold such rows; `moesim profile fit DIR` and `check
    DIR` read them. Environment variables, host names and process numbers in the files go nowhere.
    """
    with guard(debug=options.debug):
        _import(options)


def _import(options: Options) -> None:
    from moesim.calibrate.importers.csv_files import write_tables
    from moesim.calibrate.importers.formats import read_file, tables_of

    facts = _facts(options)
    files = [read_file(path, facts, options.format) for path in options.files]
    tables = tables_of(files)
    for file in files:
        _tell(file)
    if not tables:
        raise CalibrationError("nothing to write: no kernel comes with the shape it worked on")
    for path, rows in zip(write_tables(tables, options.out), tables.values(), strict=True):
        typer.echo(f"{path}: {_times(len(rows), 'row')}")


def _facts(options: Options) -> "Facts":
    from moesim.calibrate.importers.facts import Facts, checked

    return checked(
        Facts(
            hardware=options.hardware,
            library=options.library,
            library_version=options.library_version,
            num_gpus=options.num_gpus,
            num_nodes=options.num_nodes,
            network=options.network,
            interconnect=options.interconnect,
            shape=_shape(options.shape or ()),
        )
    )


def _shape(texts: Sequence[str]) -> Mapping[str, int]:
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not (value.isascii() and value.isdigit() and len(value) < 16):
            raise CalibrationError(f"--set {text!r}: a column and a whole number, num_experts=256")
        found[name] = int(value)
    return found


def _tell(file: "FileRead") -> None:
    found = file.found
    typer.echo(f"{file.path} ({file.format})")
    for table, rows in found.tables.items():
        typer.echo(f"  {table}: {_times(len(rows), 'measurement')}")
    for reason, number in found.left_out.items():
        typer.echo(f"  left out, {number:,}: {reason}")
    for note in found.notes:
        typer.echo(f"  note: {note}")
    whole_us = sum(one.total_us for one in found.classes) or 1.0
    print_table(
        [
            {
                "  kernels": f"  {one.name}",
                "number": f"{one.kernels:,}",
                "in a row": f"{one.used:,}",
                "time": f"{one.total_us / 1e3:,.3f} ms",
                "share": f"{100 * one.total_us / whole_us:.1f} %",
            }
            for one in found.classes
        ],
        right=("number", "in a row", "time", "share"),
    )


def _times(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
