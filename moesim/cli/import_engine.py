"""`moesim import vllm`, `sglang`, `trtllm`: command lines of engines to serving scenarios."""

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
    from moesim.study.engine_imports import EngineImport


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the commands, one field each."""

    accelerator: Annotated[
        str, typer.Option(metavar="NAME", help="The machines: an accelerator or a cluster profile.")
    ]
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS...", help="The command line, in quotes."),
    ] = None
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read it in a launch script; a .yaml beside ARGS holds options of the engine.",
        ),
    ] = None
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices in all; left out, those of one deployment.")
    ] = None
    engine_version: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The engine's; left out, the newest.")
    ] = None
    as_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model, where its name is not known: or a file."),
    ] = None
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 1024
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens that a request gets.")] = 1024
    in_flight: Annotated[int, typer.Option(min=1, help="Requests at the same time.")] = 64
    acceptance: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Of guessed tokens: the share accepted (0.8), one by place (0.8,0.6), or none.",
        ),
    ] = None
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
def vllm(options: Options) -> None:
    """Turn a `vllm serve` command line into a commented serving scenario."""
    _run(options, "vllm")


@command_of(Options)
def sglang(options: Options) -> None:
    """Turn a `python -m sglang.launch_server` command line into a commented serving scenario."""
    _run(options, "sglang")


@command_of(Options)
def trtllm(options: Options) -> None:
    """Turn a `trtllm-serve` or `trtllm-bench` command line into a commented serving scenario."""
    _run(options, "trtllm")


def register(app: typer.Typer) -> None:
    """Add the commands to `moesim import`."""
    for command in (vllm, sglang, trtllm):
        app.command(context_settings={"ignore_unknown_options": True})(command)


def _run(options: Options, engine: str) -> None:
    with guard(debug=options.debug):
        found = _import(options, engine)
        if options.explain:
            _explain(found)
        if found.trouble:
            typer.echo(f"moesim: cannot simulate it as it stands: {found.trouble}", err=True)
        if options.out is not None:
            options.out.write_text(found.scenario, encoding="utf-8")
            typer.echo(f"Scenario written to {options.out}", err=True)
        elif not options.explain:
            typer.echo(found.scenario, nl=False)


def _import(options: Options, engine: str) -> "EngineImport":
    from moesim.cli.import_megatron import read_variables
    from moesim.spec.engines.read import EngineSource
    from moesim.study.engine_imports import import_engine
    from moesim.study.engine_workload import Wanted

    text, file, beside = _texts(options)
    source = EngineSource(
        engine=engine, text=text, file=file, variables=read_variables(options.variables),
        options=beside, allow_unknown=options.allow_unknown,
    )  # fmt: skip
    wanted = Wanted(
        accelerator=options.accelerator, name=_name(options), devices=options.devices,
        version=options.engine_version, model=options.as_model,
        prompt_tokens=options.prompt_tokens, output_tokens=options.output_tokens,
        in_flight=options.in_flight, acceptance=options.acceptance,
    )  # fmt: skip
    return import_engine(source, wanted)


def _name(options: Options) -> str:
    return options.out.stem if options.out else options.file.stem if options.file else "imported"


def _texts(options: Options) -> tuple[str, str, tuple[str, str] | None]:
    """Return the command line, its file's name, and the engine's YAML if there is one."""
    args = options.args or []
    line = args[0] if len(args) == 1 else " ".join(map(shlex.quote, args))
    file = options.file
    if file is not None and file.suffix in (".yaml", ".yml") and args:
        return line, "ARGS", (_content(file), str(file))
    if (file is None) == (not args):
        raise ScenarioError([Problem("", "give the command line in quotes, or --file FILE")])
    return (line, "ARGS", None) if file is None else (_content(file), str(file), None)


def _content(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


_IN_WORDS = ("scheduler", "habit")
"""Settings that are sentences: below the table."""


def _explain(found: "EngineImport") -> None:
    from moesim.spec.engines.read import engine_fates

    print_table([{"argument": one.argument, "effect": one.kind, "became": one.became}
                 for read in found.reads for one in engine_fates(read)])  # fmt: skip
    if found.resolved:
        typer.echo("\nSettings of the engine as they run")
        print_table([{"setting": one.name, "value": str(one.value), "source": one.source}
                     for one in found.resolved if not one.name.endswith(_IN_WORDS)])  # fmt: skip
        for one in found.resolved:
            if one.name.endswith(_IN_WORDS):
                left = " (not modelled)" if one.source.startswith("not modelled") else ""
                typer.echo(f"{one.name}{left}: {one.value}")
    notes = [note for read in found.reads for note in read.reading.notes]
    if notes:
        typer.echo("\nNotes")
    for note in notes:
        typer.echo(f"  {note}")
