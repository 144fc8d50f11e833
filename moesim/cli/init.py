"""`moesim init`: a shipped scenario as a start for one's own."""

from pathlib import Path
from typing import Annotated

import typer

from moesim.cli.guard import Debug, guard
from moesim.errors import Problem, ScenarioError

SCHEMAS = {"moesim.schema.json": "scenario", "moesim-serving.schema.json": "serving"}
"""The files that the first lines of scenarios name, and the kind of file that they describe."""


def init(
    name: Annotated[
        str | None, typer.Argument(help="A shipped scenario; left out, all are listed.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--as", metavar="FILE", help="Name of the copy; left out: NAME.yaml."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    debug: Debug = False,
) -> None:
    """List the shipped scenarios, or copy one.

    The copy is a start for a scenario of your own.
    """
    with guard(debug=debug):
        if name is None:
            _list()
        else:
            _copy(name, file or Path(f"{name}.yaml"), force=force)


def _list() -> None:
    from moesim.spec.shipped import shipped, shipped_names

    folder = shipped("scenarios")
    names = shipped_names(folder)
    width = max(map(len, names), default=0)
    for name in names:
        about = _first_comment((folder / f"{name}.yaml").read_text(encoding="utf-8"))
        typer.echo(f"{name:<{width}}  {about}".rstrip())


def _first_comment(text: str) -> str:
    for line in text.splitlines():
        if line.startswith("#") and "$schema" not in line:
            return line.lstrip("# ").rstrip()
    return ""


def _copy(name: str, target: Path, *, force: bool) -> None:
    from moesim.spec.shipped import find_named, shipped

    text = find_named(shipped("scenarios"), name, "scenario").read_text(encoding="utf-8")
    try:
        with target.open("w" if force else "x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError:
        message = f"{target} exists; choose another name with --as, or replace it with --force"
        raise ScenarioError([Problem("", message)]) from None
    _schema_beside(target, text)
    for companion in _companions(text):
        _copy_beside(companion, target)
    what = "routing" if name.startswith("routing-") else "run"
    typer.echo(f"Wrote {target}. Next: moesim {what} {target}")


def _companions(text: str) -> list[str]:
    """Return the files that a shipped scenario reads from beside itself: a model, traces."""
    from moesim.spec.yaml_text import read_yaml

    data = read_yaml(text, "scenario").data
    load = data.get("routing", {}).get("load", {})
    requests = data.get("serving", {}).get("workload", {}).get("trace")
    if isinstance(requests, dict):
        requests = requests.get("file")
    named = (data.get("model"), data.get("software"), load.get("trace"), requests)
    return [name for name in named if isinstance(name, str) and "/" in name]


def _copy_beside(name: str, target: Path) -> None:
    """Copy a companion to the same place beside `target`, unless it is there."""
    from moesim.spec.shipped import shipped

    place = target.parent / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        place.write_bytes((shipped("scenarios") / name).read_bytes())


def _schema_beside(target: Path, text: str) -> None:
    """Write the schema that the scenario's first line names, for editors, unless it is there."""
    from moesim.spec.json_schema import schema_text

    first = text.partition("\n")[0]
    for name, kind in SCHEMAS.items():
        schema = target.with_name(name)
        if first.endswith(f"={name}") and not schema.exists():
            schema.write_text(schema_text(kind), encoding="utf-8")
