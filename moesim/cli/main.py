"""The command `moesim`: its subcommands, its version, its help."""

import signal
import sys
from typing import Annotated

import typer

from moesim.cli.calibrate import calibrate
from moesim.cli.explain import explain
from moesim.cli.hardware import hardware
from moesim.cli.import_engine import register
from moesim.cli.import_megatron import app as imports
from moesim.cli.init import init
from moesim.cli.models import models
from moesim.cli.profile import app as profile
from moesim.cli.routing import routing
from moesim.cli.run import run
from moesim.cli.schema import schema
from moesim.cli.validate import validate

app = typer.Typer(
    name="moesim",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for _command in (run, routing, init, explain, models, hardware, schema, calibrate, validate):
    app.command()(_command)

app.add_typer(profile, name="profile")
register(imports)
app.add_typer(imports, name="import")


def _version(wanted: bool) -> None:
    if wanted:
        from moesim.version import __version__

        typer.echo(f"moesim {__version__}")
        raise typer.Exit


@app.callback()
def _moesim(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Simulate Mixture-of-Experts models on clusters: time, memory, cost.

    Start with `moesim init`, then `moesim run SCENARIO`.
    """
    del version


def main() -> None:
    """Run the command line; what the terminal cannot show is escaped, not an error."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after Ctrl-C
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
