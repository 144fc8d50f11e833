"""From plain data to a schema object, with every problem at its file, line and column."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from moesim.errors import Problem, ScenarioError, nearest
from moesim.spec.base import Spec
from moesim.spec.yaml_text import Document, dotted, read_yaml
from moesim.spec.yaml_text import Path as KeyPath

_S = TypeVar("_S", bound=Spec)


def read_document(path: Path) -> Document:
    """Return the YAML document in the file `path`; ScenarioError where it cannot be read."""
    try:
        with path.open("rb") as handle:
            raw = handle.read(2**20 + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ScenarioError([Problem("", f"cannot read {path}: {reason}")]) from None
    except ValueError:
        raise ScenarioError([Problem("", f"'{path}' is not a file name")]) from None
    return read_yaml(raw, str(path))


def build(kind: type[_S], document: Document) -> _S:
    """Return `document` as a `kind`; raises ScenarioError with all problems at once."""
    try:
        return kind.model_validate(document.data)
    except ValidationError as error:
        problems = [_problem(kind, document, dict(item)) for item in error.errors()]
        raise ScenarioError(dict.fromkeys(problems)) from None


def load(kind: type[_S], path: Path) -> _S:
    """Return the YAML file `path` as a `kind`."""
    return build(kind, read_document(path))


def _problem(kind: type[Spec], document: Document, item: dict[str, Any]) -> Problem:
    path = _user_path(item["loc"], document.data)
    missing = item["type"] == "missing"
    at = document.at(path[:-1] if missing else path)
    return Problem(dotted(path), _message(kind, path, item), *at)


def _user_path(loc: tuple[str | int, ...], data: Any) -> KeyPath:
    """Drop the parts of pydantic's location that are not keys of the file (union tags)."""
    path: list[str | int] = []
    for i, part in enumerate(loc):
        is_key = isinstance(data, dict) and part in data
        is_index = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if is_key or is_index:
            data = data[part]
            path.append(part)
        elif i == len(loc) - 1 and isinstance(data, dict):
            path.append(part)  # a key that is missing
    return tuple(path)


def _message(kind: type[Spec], path: KeyPath, item: dict[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        allowed = sorted(fields_at(kind, path[:-1]))
        known = f" Allowed: {', '.join(allowed)}." if allowed else ""
        return f"unknown key.{nearest(str(path[-1]), allowed)}{known}"
    if item["type"] == "missing":
        return "this key is required"
    if item["type"] == "literal_error":
        expected = str(item["ctx"]["expected"])
        options = [option.strip(" '") for option in expected.replace(" or ", ",").split(",")]
        return f"must be one of {expected}.{nearest(str(item['input']), options)}"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    message = str(item["msg"])
    return message[0].lower() + message[1:]


def fields_at(kind: type[BaseModel], path: KeyPath) -> set[str]:
    """Return the keys that may stand at `path` below a `kind`."""
    kinds = [kind]
    for part in path:
        if isinstance(part, str):
            kinds = [
                inner
                for outer in kinds
                if part in outer.model_fields
                for inner in models_in(outer.model_fields[part].annotation)
            ]
    return {name for one in kinds for name in one.model_fields}


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the schema classes inside a type annotation (unions, optionals, lists)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[type[BaseModel]] = []
    for part in getattr(annotation, "__args__", ()):
        found.extend(models_in(part))
    return found
