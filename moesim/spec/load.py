"""A scenario from a file: extends, --set, and every problem at its place."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from moesim.errors import Problem, ScenarioError
from moesim.spec.scenario import Scenario
from moesim.spec.serving.scenario import ServingScenario
from moesim.spec.shipped import find_named, names_file, shipped
from moesim.spec.validate import build, read_document
from moesim.spec.yaml_text import Document, Position, read_yaml, short
from moesim.spec.yaml_text import Path as KeyPath

_MAX_EXTENDS = 8
_YAML = (".yaml", ".yml")
_OWN = ("name", "description")
"""Keys that a scenario does not take over from the one it extends."""
_FILES: tuple[KeyPath, ...] = (
    ("model",), ("software",), ("cluster", "profile"), ("baseline", "model"),
    ("serving", "workload", "trace"), ("serving", "workload", "trace", "file"),
    *(("serving", "workload", which, *end) for which in ("prompt", "output")
      for end in ((), ("file",))),
)  # fmt: skip
"""Keys that may name a file, which is looked for from the folder of the scenario naming it."""


def load_scenario(path: str | Path, settings: Iterable[str] = ()) -> Scenario:
    """Return the scenario in the file `path`, or the shipped scenario of that name.

    `settings` are "key=value" texts with dotted keys, applied last. Raises ScenarioError with
    all problems of the file at once.
    """
    file = scenario_file(path)
    document = _document(file, settings)
    if isinstance(document.data, dict) and "serving" in document.data:
        said = "belongs to a serving scenario, which `moesim run` simulates; here one of training"
        raise ScenarioError([Problem("serving", f"{said} is needed", *document.at(("serving",)))])
    return build(Scenario, document, also=("extends",)).origin(document, file.parent)


def is_serving(path: str | Path, settings: Iterable[str] = ()) -> bool:
    """Tell whether the scenario has the key `serving`; raises as `load_scenario` does."""
    data = _document(scenario_file(path), settings).data
    return isinstance(data, dict) and "serving" in data


def load_serving(path: str | Path, settings: Iterable[str] = ()) -> ServingScenario:
    """Return the serving scenario in the file `path`, or the shipped one of that name."""
    file = scenario_file(path)
    document = _document(file, settings)
    return build(ServingScenario, document, also=("extends",)).origin(document, file.parent)


def _document(file: Path, settings: Iterable[str]) -> Document:
    document = _with_extends(file, ())
    if isinstance(document.data, dict):
        for setting in settings:
            document = _set(document, setting)
        document.data.setdefault("name", _stem_name(file))
    return document


def scenario_file(path: str | Path) -> Path:
    """Return the file that `path` names: itself, or a shipped scenario."""
    text = str(path)
    if text.endswith(_YAML) or "/" in text or _exists(text):
        return Path(text)
    return find_named(shipped("scenarios"), text, "scenario")


def _exists(name: str) -> bool:
    with suppress(OSError, ValueError):  # too long, or with a null byte: no file at all
        return Path(name).exists()
    return False


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
        raise _wrong_parent("must be the name of a scenario or the path of its file", at)
    real = file.resolve()
    if real in seen:
        raise _wrong_parent("scenarios extend each other in a circle", at)
    if len(seen) >= _MAX_EXTENDS:
        raise _wrong_parent(f"more than {_MAX_EXTENDS} scenarios extend each other", at)
    parent = _parent(file, parent_name, at, (*seen, real))
    return _merge(parent, document)


def _wrong_parent(message: str, at: Position) -> ScenarioError:
    return ScenarioError([Problem("extends", message, *at)])


def _parent(file: Path, name: str, at: Position, seen: tuple[Path, ...]) -> Document:
    """Return the document that `file` extends, its relative paths as seen from `file`."""
    try:
        if name.endswith(_YAML) or "/" in name:
            parent = file.parent / name
        else:
            parent = find_named(shipped("scenarios"), name, "scenario")
        document = _with_extends(parent, seen)
    except ScenarioError as error:
        if any(problem.file for problem in error.problems):
            raise
        raise _wrong_parent(error.problems[0].message, at) from None
    if isinstance(document.data, dict):
        for key in _OWN:
            document.data.pop(key, None)
        for path in _FILES:
            _move(document.data, path, parent.parent, file.parent)
        return document
    raise ScenarioError(
        [Problem("", "a scenario has keys at its top, not a list or one value", *document.at(()))]
    )


def _move(data: Any, path: KeyPath, source: Path, target: Path) -> None:
    """Rewrite a relative path at `path`, which starts at `source`, to start at `target`."""
    *outer, last = path
    for part in outer:
        data = data.get(part) if isinstance(data, dict) else None
    name = data.get(last) if isinstance(data, dict) else None
    if isinstance(name, str) and names_file(name) and not Path(name).is_absolute():
        with suppress(ValueError, OSError):  # not a file name: whoever reads it says so
            moved = Path(os.path.relpath(source / name, target)).as_posix()
            data[last] = moved if names_file(moved) else f"./{moved}"


def _merge(below: Document, above: Document) -> Document:
    """Return `below` changed by `above`: mappings key by key, all else replaced."""
    replaced: list[KeyPath] = []
    data = _merged(below.data, above.data, (), replaced)
    kept = {
        path: place
        for path, place in below.positions.items()
        if not any(path[: len(gone)] == gone for gone in replaced)
    }
    return Document(data, {**kept, **above.positions})


def _merged(below: Any, above: Any, path: KeyPath, replaced: list[KeyPath]) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        replaced.append(path)
        return above
    result = dict(below)
    for key, value in above.items():
        known = key in below
        result[key] = _merged(below[key], value, (*path, key), replaced) if known else value
    return result


def _set(document: Document, setting: str) -> Document:
    """Return `document` with one key changed; problems show the setting as their place."""
    shown = f"--set {short(setting)}"
    key, equals, value = setting.partition("=")
    path: KeyPath = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        message = "must have the form key=value, such as parallel.tp=8"
        raise ScenarioError([Problem("", message, shown, 1, 1)])
    if path == ("extends",):
        raise ScenarioError([Problem("extends", "stands in a file only", shown, 1, 1)])
    parsed = _set_value(key, value, shown)
    for part in reversed(path):
        parsed = {part: parsed}
    outer = {path[:i]: document.at(path[:i]) for i in range(len(path))}
    known = {place: at for place, at in outer.items() if place in document.positions}
    new = {path[:i]: (shown, 1, 1) for i in range(1, len(path) + 1)}
    return _merge(document, Document(parsed, {**new, **known}))


def _set_value(key: str, value: str, shown: str) -> Any:
    try:
        return read_yaml(value, shown).data if value.strip() else None
    except ScenarioError as error:
        first = error.problems[0]
        raise ScenarioError([Problem(short(key), first.message, shown, 1, 1)]) from None
