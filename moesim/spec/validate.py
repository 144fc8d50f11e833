"""From plain data to a schema object, with every problem at its file, line and column."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from moesim.errors import Problem, ScenarioError, nearest
from moesim.spec.base import Spec
from moesim.spec.yaml_text import Document, dotted, read_yaml, short
from moesim.spec.yaml_text import Path as KeyPath

_S = TypeVar("_S", bound=Spec)
_MOST_PROBLEMS = 100


def read_document(path: Path) -> Document:
    """Return the YAML document in the file `path`; ScenarioError where it cannot be read.

    A file that cannot be opened is a problem without a place: callers that know who asked for
    the file say where.
    """
    try:
        with path.open("rb") as handle:
            raw = handle.read(2**20 + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ScenarioError([Problem("", f"cannot read {_shown(path)}: {reason}")]) from None
    except ValueError:
        raise ScenarioError([Problem("", f"'{_shown(path)}' is not a file name")]) from None
    return read_yaml(raw, str(path))


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:80]}…{text[-80:]}"


def build(kind: type[_S], document: Document, *, also: Sequence[str] = ()) -> _S:
    """Return `document` as a `kind`; raises ScenarioError with all problems at once.

    `also` are keys that have been read already and are named among the allowed ones.
    """
    try:
        return kind.model_validate(document.data)
    except ValidationError as error:
        items = error.errors(include_url=False)
        found = {_problem(kind, document, dict(item), also) for item in items[:_MOST_PROBLEMS]}
        problems = sorted(found, key=_in_file_order)
        if (more := len(items) - _MOST_PROBLEMS) > 0:
            problems.append(Problem("", f"and {more:,} more problems", *document.at(())))
        raise ScenarioError(problems) from None


def _in_file_order(problem: Problem) -> tuple[bool, str, int, int, str, str]:
    on_command_line = problem.file.startswith("--set ")
    where = (problem.file, problem.line, problem.column)
    return (on_command_line, *where, problem.path, problem.message)


def load(kind: type[_S], path: Path) -> _S:
    """Return the YAML file `path` as a `kind`.

    JSON below comments is YAML too and read as such; what is wrong in it is said with its place.
    """
    quick = _quickly(kind, path)
    return build(kind, read_document(path)) if quick is None else quick


def _quickly(kind: type[_S], path: Path) -> _S | None:
    """Return the file as a `kind` if it is JSON below comments and nothing is wrong in it."""
    try:
        with path.open("rb") as handle:
            raw = handle.read(2**20 + 1)
        lines = raw.decode("utf-8").split("\n")
        first = next(n for n, line in enumerate(lines) if not line.startswith("#"))
        if len(raw) > 2**20 or not lines[first].startswith("{"):
            return None
        return kind.model_validate(json.loads("\n".join(lines[first:])))
    except (OSError, ValueError, StopIteration, RecursionError):  # the slow reader says what it is
        return None


def _problem(
    kind: type[Spec], document: Document, item: dict[str, Any], also: Sequence[str]
) -> Problem:
    path = _user_path(item["loc"], document.data)
    if item["type"].startswith("union_tag"):
        path = (*path, item["ctx"]["discriminator"].strip("'"))
    if item["type"] == "extra_forbidden":
        allowed = fields_at(kind, path[:-1], document.data)
        message = _unknown_key(str(path[-1]), [*allowed, *(also if len(path) == 1 else ())])
    elif item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        allowed = fields_at(kind, path, document.data)
        message = f"must have keys of its own ({_some(allowed)}), not {_got(item['input'])}"
    else:
        message = _message(item)
    return Problem(dotted(path), message, *document.at(path))


def _user_path(loc: tuple[str | int, ...], data: Any) -> KeyPath:
    """Drop the parts of pydantic's location that are not keys of the file (union tags)."""
    path: list[str | int] = []
    for i, part in enumerate(loc):
        is_key = isinstance(data, dict) and part in data
        is_index = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if is_key or is_index:
            data = data[part]
            path.append(part)
        elif i == len(loc) - 1 and isinstance(data, dict) and isinstance(part, str):
            path.append(part)  # a key that is missing
    return tuple(path)


def _unknown_key(key: str, allowed: list[str]) -> str:
    first, dot, rest = key.partition(".")
    if dot and first in allowed:
        return f"unknown key. Keys are nested: write '{first}:' and '{short(rest)}:' below it"
    return f"unknown key.{nearest(key, allowed)} Allowed: {', '.join(sorted(allowed))}."


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def _message(item: dict[str, Any]) -> str:
    kind, context, given = item["type"], item.get("ctx", {}), item["input"]
    if kind == "missing":
        return "this key is required"
    if kind in _SPECIAL:
        return _SPECIAL[kind](context, given)
    if given is None:
        return "has no value; give one or leave the key out"
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}, not {_got(given)}{_hint(kind, given)}"
    if kind in _LIMITS:
        word, name = _LIMITS[kind]
        return f"must {word} {_plain(context[name])}, not {_got(given)}"
    message = str(item["msg"])
    return message[0].lower() + message[1:]


_WANTED: Mapping[str, str] = MappingProxyType(
    {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "string_type": "text",
        "tuple_type": "a list",
        "list_type": "a list",
        "finite_number": "a finite number",
    }
)

_LIMITS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "greater_than_equal": ("be at least", "ge"),
        "greater_than": ("be above", "gt"),
        "less_than_equal": ("be at most", "le"),
        "less_than": ("be below", "lt"),
        "string_too_short": ("have a length of at least", "min_length"),
        "string_too_long": ("have a length of at most", "max_length"),
        "too_short": ("have a length of at least", "min_length"),
        "too_long": ("have a length of at most", "max_length"),
        "string_pattern_mismatch": ("match the pattern", "pattern"),
    }
)


def _words(context: dict[str, Any], given: Any) -> str:
    expected = str(context["expected"])
    options = [option.strip(" '") for option in expected.replace(" or ", ",").split(",")]
    hint = nearest(str(given)[:100], options)
    return f"must be {'one of ' if len(options) > 1 else ''}{expected}, not {_got(given)}.{hint}"


def _tags(context: dict[str, Any], given: Any) -> str:
    tag = context.get("tag")
    options = [option.strip(" '") for option in context["expected_tags"].split(",")]
    hint = nearest(str(tag)[:100], options)
    return f"must be one of {context['expected_tags']}, not '{short(str(tag))}'.{hint}"


_SPECIAL: Mapping[str, Callable[[dict[str, Any], Any], str]] = MappingProxyType(
    {
        "literal_error": _words,
        "union_tag_invalid": _tags,
        "union_tag_not_found": lambda context, given: "this key is required",
        "value_error": lambda context, given: _one_line(str(context["error"])),
    }
)


def _plain(limit: Any) -> str:
    whole = isinstance(limit, float) and limit.is_integer() and abs(limit) < 1e15
    return str(int(limit) if whole else limit)


def _got(value: Any) -> str:
    if isinstance(value, str):
        return f"'{short(value)}'"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, dict):
        return "keys of its own"
    return "a list" if isinstance(value, list | tuple) else short(str(value))


def _hint(kind: str, given: Any) -> str:
    if kind.startswith("int") and isinstance(given, float) and given.is_integer():
        return f"; write {int(given)}" if abs(given) < 1e15 else ""
    if kind == "bool_type" and str(given).lower() in ("yes", "no", "on", "off"):
        return f"; write {str(given.lower() in ('yes', 'on')).lower()}"
    if kind == "string_type" and isinstance(given, int | float):
        return "; put it in quotes"
    if kind in ("int_type", "float_type", "bool_type") and isinstance(given, str):
        return "; leave the quotes out" if _is_plain(kind, given) else ""
    return ""


def _is_plain(kind: str, text: str) -> bool:
    if kind == "bool_type":
        return text in ("true", "false")
    return text.isascii() and text.removeprefix("-").replace(".", "", 1).isdigit()


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 500 else f"{flat[:500]}…"


def fields_at(kind: type[BaseModel], path: KeyPath, data: Any = None) -> list[str]:
    """Return the keys that may stand at `path` below a `kind`, in the order of the schema.

    `data` decides between the alternatives of a union by what stands there.
    """
    kinds = [kind]
    for part in path:
        data = _below(data, part)
        if isinstance(part, str):
            kinds = [
                inner
                for outer in kinds
                if part in outer.model_fields
                for inner in models_in(outer.model_fields[part].annotation)
            ]
    suiting = [one for one in kinds if _suits(one, data)] or kinds
    return list(dict.fromkeys(name for one in suiting for name in one.model_fields))


def _below(data: Any, part: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(part)
    if isinstance(data, list) and isinstance(part, int) and part < len(data):
        return data[part]
    return None


def _suits(kind: type[BaseModel], data: Any) -> bool:
    """Tell whether the words in `data` are those that the fields of `kind` allow."""
    if not isinstance(data, dict):
        return True
    for name, info in kind.model_fields.items():
        is_word = get_origin(info.annotation) is Literal and info.is_required()
        if is_word and name in data and data[name] not in get_args(info.annotation):
            return False
    return True


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the schema classes inside a type annotation (unions, optionals, lists)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[type[BaseModel]] = []
    for part in getattr(annotation, "__args__", ()):
        found.extend(models_in(part))
    return found
