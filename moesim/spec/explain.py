"""What a key means, read from the schema: its docstring, type, default and allowed values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from moesim.errors import Problem, ScenarioError, nearest
from moesim.spec.json_schema import EXTENDABLE, EXTENDS, KINDS, Json, plain_schema, target

PREFIXES: Mapping[str, str] = MappingProxyType(
    {
        "scenario": "",
        "serving": "",
        "model": "model.",
        "accelerator": "accelerator.",
        "cluster": "cluster-profile.",
        "software": "software.",
    }
)
"""What stands before the keys of each kind of file."""

_MOST_NAMED = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key that a user may write."""

    path: str
    text: str
    """What its docstring says."""
    kind: str
    """Its type, in words."""
    default: str | None = None
    """None where the key is required."""
    allowed: tuple[str, ...] = ()
    example: str = ""
    keys: tuple["Key", ...] = ()
    """The keys below it."""
    place: str = ""
    """Schema class and name: equal for one key that stands in several places."""
    also: tuple[str, ...] = ()
    """The other paths of the same key."""

    @property
    def name(self) -> str:
        """The last word of the path."""
        return self.path.rpartition(".")[2]

    @property
    def is_figure(self) -> bool:
        """Whether it holds a value with its source."""
        return self.kind.startswith("figure")


def tree() -> tuple[Key, ...]:
    """Return the keys of a scenario, then one entry for each other kind of file."""
    return (
        *_keys("scenario"),
        *_keys("serving"),
        *(_file(kind) for kind, prefix in PREFIXES.items() if prefix),
    )


def find(words: str) -> Key:
    """Return the key called `words`: a dotted path, or the end of one that is unambiguous.

    Raises ScenarioError with the nearest key, or with all keys that may be meant.
    """
    wanted = words.strip().strip(".")
    known = [key for kind in KINDS for key in _flat(_keys(kind))]
    if exact := [key for key in known if key.path == wanted]:
        return _with_others(exact[0], known)
    for kind, prefix in PREFIXES.items():
        if wanted == prefix.rstrip(".") != "":
            return _file(kind)
    ends = _ending(wanted, known)
    if len({key.place for key in ends}) == 1:
        return _with_others(min(ends, key=lambda key: len(key.path)), known)
    raise ScenarioError([Problem("", _unknown(wanted, known, ends))])


def _ending(wanted: str, known: list[Key]) -> list[Key]:
    """Return the keys whose path ends in `wanted`; those of a scenario go first."""
    prefix, _, last = wanted.partition(".")
    of_file = [p for p in PREFIXES.values() if p == f"{prefix}." and last]
    if of_file:
        return [k for k in known if k.path.startswith(of_file[0]) and k.path.endswith(f".{last}")]
    ends = [key for key in known if key.path.endswith(f".{wanted}")]
    files = (*(prefix for prefix in PREFIXES.values() if prefix), "serving.")
    return [key for key in ends if not key.path.startswith(files)] or ends


def _unknown(wanted: str, known: list[Key], ends: list[Key]) -> str:
    if ends:
        paths = [key.path for key in ends[:_MOST_NAMED]]
        more = ", …" if len(ends) > _MOST_NAMED else ""
        return f"'{wanted}' may mean several keys: {', '.join(paths)}{more}"
    hint = nearest(wanted, [key.path for key in known]) or nearest(
        wanted.rpartition(".")[2], [key.name for key in known]
    )
    return f"unknown key '{wanted}'.{hint} `moesim explain` lists all keys."


def _with_others(key: Key, known: list[Key]) -> Key:
    others = [one.path for one in known if one.place == key.place and one.path != key.path]
    if key.is_figure or len(others) > _MOST_NAMED:
        others = []
    keys = key.keys
    if key.path in KINDS and not keys:  # a scenario names a file here: show what is in it
        keys = _keys(key.path)
    return replace(key, also=tuple(others), keys=keys)


def _flat(keys: tuple[Key, ...]) -> Iterator[Key]:
    for key in keys:
        yield key
        yield from _flat(key.keys)


def _file(kind: str) -> Key:
    text = f"{plain_schema(kind)['description']} A YAML file of its own."
    path = PREFIXES[kind].rstrip(".")
    return Key(path=path, text=text, kind="file", default="", keys=_keys(kind))


def _keys(kind: str) -> tuple[Key, ...]:
    schema = plain_schema(kind)
    if kind in EXTENDABLE:
        schema["properties"] = {"extends": EXTENDS, **schema["properties"]}
    if kind == "serving":  # its other keys are those of any scenario
        schema["properties"] = {kind: schema["properties"][kind]}
    return _below(_Place(schema["definitions"], PREFIXES[kind], kind), schema)


@dataclass(frozen=True, slots=True)
class _Place:
    definitions: Json
    prefix: str
    owner: str


def _below(place: _Place, schema: Json) -> tuple[Key, ...]:
    required = schema.get("required", ())
    return tuple(
        _key(place, name, node, required=name in required)
        for name, node in schema["properties"].items()
    )


def _key(place: _Place, name: str, node: Json, *, required: bool) -> Key:
    parts = [part for part in _alternatives(node) if part.get("type") != "null"]
    keys: dict[str, Key] = {}
    text = node.get("description", "")
    for part in parts:
        if owner := target(part):
            inner = place.definitions[owner]
            text = text or inner.get("description", "")
            below = _Place(place.definitions, f"{place.prefix}{name}.", owner)
            for key in _below(below, inner):
                keys[key.name] = _both(keys[key.name], key) if key.name in keys else key
    return Key(
        path=place.prefix + name,
        text=text,
        kind=_kind(parts, keys),
        default=None if required else _default(node, has_keys=bool(keys)),
        allowed=tuple(str(value) for part in parts for value in _allowed(part)),
        example=_example(parts, keys),
        keys=tuple(keys.values()),
        place=f"{place.owner}.{name}",
    )


def _both(first: Key, second: Key) -> Key:
    """Join the keys of one name in the alternatives of a union."""
    allowed = tuple(dict.fromkeys((*first.allowed, *second.allowed)))
    return replace(first, allowed=allowed)


def _alternatives(node: Json) -> list[Json]:
    for word in ("anyOf", "oneOf", "allOf"):
        if word in node:
            return list(node[word])
    return [node]


def _allowed(part: Json) -> list[Any]:
    items = part.get("items", {})
    if isinstance(items, dict) and "enum" in items:
        return [f"[{', '.join(items['enum'])}]"]
    return list(part.get("enum", [part["const"]] if "const" in part else []))


def _kind(parts: list[Json], keys: dict[str, Key]) -> str:
    if {"value", "source"} <= set(keys):
        return f"figure with source and kind; value: {keys['value'].kind}"
    return "keys below" if keys else ", or ".join(dict.fromkeys(map(_kind_of, parts)))


def _kind_of(part: Json) -> str:
    if "enum" in part or "const" in part:
        return "one word of those allowed"
    if "examples" in part:
        return "quantity with its unit"
    if part.get("type") == "array":
        return "list"
    names = {"integer": "whole number", "number": "number", "boolean": "true or false"}
    return names.get(str(part.get("type")), "text") + _range(part)


def _range(part: Json) -> str:
    words = {
        "minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most",
        "exclusiveMaximum": "below",
    }  # fmt: skip
    limits = [f"{word} {_plain(part[key])}" for key, word in words.items() if key in part]
    return f", {' and '.join(limits)}" if limits else ""


def _plain(limit: float) -> str:
    return str(int(limit) if float(limit).is_integer() else limit)


def _example(parts: list[Json], keys: dict[str, Key]) -> str:
    if {"value", "source"} <= set(keys) and keys["value"].example:
        return f"{{value: {keys['value'].example}, source: where it was read, kind: datasheet}}"
    return next((str(part["examples"][0]) for part in parts if part.get("examples")), "")


def _default(node: Json, *, has_keys: bool) -> str:
    value = node.get("default")
    if has_keys and value:
        return "that of each key below"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value not in (None, [], "") else "none"
