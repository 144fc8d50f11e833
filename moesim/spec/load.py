"""A scenario from a file: extends, --set, and every problem at its place."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moesim.errors import Problem, ScenarioError
from moesim.spec.scenario import Scenario
from moesim.spec.shipped import find_named, shipped
from moesim.spec.validate import build, read_document
from moesim.spec.yaml_text import Document, Position, read_yaml
from moesim.spec.yaml_text import Path as KeyPath

_MAX_EXTENDS = 8


def load_scenario(path: str | Path, settings: Iterable[str] = ()) -> Scenario:
    """Return the scenario in the file `path`, or the shipped scenario of that name.

    `settings` are "key=value" texts with dotted keys, applied last. Raises ScenarioError with
    all problems of the file at once.
    """
    file = scenario_file(path)
    document = _with_extends(file, ())
    for setting in settings:
        document = _set(document, setting)
    if not isinstance(document.data, dict):
        raise ScenarioError(
            [Problem("", "a scenario is a list of `key: value` lines", *document.at(()))]
        )
    document.data.setdefault("name", _stem_name(file))
    return build(Scenario, document).origin(document, file.parent)


def scenario_file(path: str | Path) -> Path:
    """Return the file that `path` names: itself, or a shipped scenario."""
    text = str(path)
    if text.endswith((".yaml", ".yml")) or "/" in text or Path(text).is_file():
        return Path(text)
    return find_named(shipped("scenarios"), text, "scenario")


def _stem_name(file: Path) -> str:
    allowed = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in file.stem)
    return allowed.lstrip("._-")[:100] or "scenario"


def _with_extends(file: Path, seen: tuple[Path, ...]) -> Document:
    document = read_document(file)
    if not isinstance(document.data, dict) or "extends" not in document.data:
        return document
    parent_name = document.data.pop("extends")
    at = document.at(("extends",))
    if not isinstance(parent_name, str):
        raise ScenarioError([Problem("extends", "must name one scenario", *at)])
    if file.resolve() in seen or len(seen) >= _MAX_EXTENDS:
        raise ScenarioError([Problem("extends", "scenarios extend each other in a circle", *at)])
    parent = _parent_file(file, parent_name, at)
    return _merge(_with_extends(parent, (*seen, file.resolve())), document)


def _parent_file(file: Path, name: str, at: Position) -> Path:
    if name.endswith((".yaml", ".yml")):
        parent = file.parent / name
        if not parent.is_file():
            raise ScenarioError([Problem("extends", f"there is no file '{name}'", *at)])
        return parent
    try:
        return find_named(shipped("scenarios"), name, "scenario")
    except ScenarioError as error:
        problem = error.problems[0]
        raise ScenarioError([Problem("extends", problem.message, *at)]) from None


def _merge(below: Document, above: Document) -> Document:
    """Return `below` changed by `above`: mappings key by key, all else replaced."""
    data = _merged(below.data, above.data)
    return Document(data, {**below.positions, **above.positions})


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    result = dict(below)
    for key, value in above.items():
        result[key] = _merged(below[key], value) if key in below else value
    return result


def _set(document: Document, setting: str) -> Document:
    key, equals, value = setting.partition("=")
    path: KeyPath = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        message = f"'{setting}' must have the form key=value, such as parallel.tp=8"
        raise ScenarioError([Problem("", message, "--set", 1, 1)])
    parsed = read_yaml(value, f"--set {key}").data if value.strip() else None
    for part in reversed(path):
        parsed = {part: parsed}
    place: Position = (f"--set {setting}", 1, 1)
    positions = {path[:length]: place for length in range(1, len(path) + 1)}
    return Document(
        _merged(document.data, parsed),
        {**{k: v for k, v in document.positions.items() if k[: len(path)] != path},
         **{k: v for k, v in positions.items() if k not in document.positions or k == path}},
    )  # fmt: skip
