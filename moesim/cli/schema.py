"""`moesim schema`: the JSON Schema with which editors complete and check YAML files."""

from pathlib import Path
from typing import Annotated

import typer

from moesim.cli.guard import Debug, guard


def schema(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it to a file.")] = None,
    kind: Annotated[
        str,
        typer.Option(
            help="What is described: scenario (of training), serving, model, accelerator, cluster, "
            "software."
        ),
    ] = "scenario",
    debug: Debug = False,
) -> None:
    """Print the JSON Schema for editors (draft-07).

    A scenario names it in its first line: # yaml-language-server: $schema=FILE
    """
    with guard(debug=debug):
        from moesim.spec.json_schema import schema_text

        text = schema_text(kind)
        if out is None:
            typer.echo(text, nl=False)
        else:
            out.write_text(text, encoding="utf-8")
