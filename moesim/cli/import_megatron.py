"""`moesim import megatron`: Megatron-LM's arguments to a scenario."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.cli.guard import Debug, guard
from moesim.cli.options import command_of
from moesim.cli.tables import print_table
from moesim.errors import Problem, ScenarioError

if TYPE_CHECKING:
    from moesim.study.imports import Import

app = typer.Typer(no_args_is_help=True, help="Read other tools' runs as scenarios.")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command, one field each."""

    accelerator: Annotated[
        str, typer.Option(metavar="NAME", help="The machines: an accelerator or a cluster profile.")
    ]
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS...", help="Megatron-LM's command line or its arguments."),
    ] = None
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read them in a launch script or a list of arguments."),
    ] = None
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="Devices in all; left out, what the launcher's options say."),
    ] = None
    nnodes: Annotated[int | None, typer.Option(min=1, help="Nodes, as for torchrun.")] = None
    nproc_per_node: Annotated[
        int | None, typer.Option("--nproc-per-node", "--nproc_per_node", min=1,
                                 help="Devices of a node, as for torchrun."),
    ] = None  # fmt: skip
    variables: Annotated[
        list[str] | None,
        typer.Option("--var", metavar="NAME=VALUE", help="A variable that the script leaves open."),
    ] = None
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the scenario goes; left out: stdout.")
    ] = None
    explain: Annotated[
        bool, typer.Option("--explain", help="Print what each argument became instead.")
    ] = False
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="List unknown arguments instead of failing.")
    ] = False
    debug: Debug = False


@command_of(Options)
def megatron(options: Options) -> None:
    """Turn Megatron-LM arguments into a commented scenario.

    A model that is not in the catalogue goes to NAME-model.yaml beside the scenario.
    """
    with guard(debug=options.debug):
        found = _import(options)
        if options.explain:
            _explain(found)
        if found.trouble:
            typer.echo(f"moesim: cannot simulate it as it stands: {found.trouble}", err=True)
        if options.out is not None:
            _write(found, options.out)
        elif not options.explain:
            typer.echo(found.scenario, nl=False)
            if found.model is not None:
                typer.echo(f"\n# --- {found.model_name}: save what follows under this name\n")
                typer.echo(found.model, nl=False)


app.command(context_settings={"ignore_unknown_options": True})(megatron)


@app.callback()
def _import_command() -> None:
    """Read other tools' runs as scenarios."""


def _import(options: Options) -> "Import":
    from moesim.spec.megatron.read import Source
    from moesim.study.imports import import_megatron

    text, file = _text(options)
    name = options.out.stem if options.out else options.file.stem if options.file else "imported"
    source = Source(
        text=text, file=file, variables=read_variables(options.variables),
        devices=_devices(options), allow_unknown=options.allow_unknown,
    )  # fmt: skip
    return import_megatron(source, options.accelerator, name)


def _text(options: Options) -> tuple[str, str]:
    args = options.args or []
    if (options.file is None) == (not args):
        raise ScenarioError([Problem("", "give the arguments in quotes, or --file FILE")])
    if options.file is not None:
        return options.file.read_text(encoding="utf-8", errors="replace"), str(options.file)
    return (args[0] if len(args) == 1 else " ".join(map(_quoted, args))), "ARGS"


def _quoted(part: str) -> str:
    """One of many words stands for itself; a piece of a command line is read on."""
    return part if part.startswith("-") else shlex.quote(part)


def read_variables(settings: list[str] | None) -> dict[str, str]:
    """Return NAME=VALUE texts as a mapping."""
    found = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not equals:
            message = f"--var {setting} must have the form NAME=VALUE"
            raise ScenarioError([Problem("", message)])
        found[name] = value
    return found


def _devices(options: Options) -> int | None:
    if options.devices is not None or options.nproc_per_node is None:
        return options.devices
    return options.nproc_per_node * (options.nnodes or 1)


def _write(found: "Import", out: Path) -> None:
    out.write_text(found.scenario, encoding="utf-8")
    typer.echo(f"Scenario written to {out}", err=True)
    if found.model is not None:
        path = out.with_name(found.model_name)
        path.write_text(found.model, encoding="utf-8")
        typer.echo(f"Model written to {path}", err=True)


def _explain(found: "Import") -> None:
    from moesim.spec.megatron.read import fates
    from moesim.spec.megatron.reading import yaml_value

    print_table([{"argument": one.argument, "effect": one.kind, "became": one.became}
                 for one in fates(found.imported)])  # fmt: skip
    reading = found.imported.reading
    if reading.filled:
        typer.echo("\nNot given: Megatron-LM's default, where moesim's own is another")
        print_table([
            {"argument": f"--{one.argument}", "key": one.key, "Megatron-LM": yaml_value(one.value),
             "moesim": yaml_value(one.own)} for one in reading.filled
        ])  # fmt: skip
    if reading.notes:
        typer.echo("\nNotes")
    for note in reading.notes:
        typer.echo(f"  {note}")
