"""YAML text to plain data, with the line and column of every key, and nothing dangerous.

Refused: files over 1 MiB, more than 64 aliases or levels, more than 100,000 values, duplicate
keys, tags, merge keys, several documents, NaN and infinity. Numbers, words and nulls are those of
YAML 1.2, so 12:30 and 1_000 are text and 1e9 is a number.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from ruamel.yaml.reader import ReaderError

from moesim.errors import Problem, ScenarioError

MAX_BYTES = 2**20
MAX_ALIASES = 64
MAX_LEVELS = 64
MAX_VALUES = 10**5
MAX_DIGITS = 30
MAX_PROBLEMS = 100

Path = tuple[str | int, ...]
Position = tuple[str, int, int]

_INT = re.compile(r"[-+]?[0-9]+$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = {"", "~", "null", "Null", "NULL"}
_LONGEST_PART = 60


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML file says, and where it says it."""

    data: Any
    positions: dict[Path, Position] = field(default_factory=dict)

    def at(self, path: Path) -> Position:
        """Return the position of the deepest part of `path` that the file has."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.positions:
                return self.positions[path[:length]]
        return ("", 0, 0)


def dotted(path: Path) -> str:
    """Return `path` as the user would write it, such as `parallel.tp` or `levels[0].fanout`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{short(part)}" if text else short(part)
    return text


def short(text: str) -> str:
    """Return `text`, cut where it is too long for a message."""
    return text if len(text) <= _LONGEST_PART else f"{text[:_LONGEST_PART]}…"


def read_yaml(text: str | bytes, file: str) -> Document:
    """Return the document in `text`; `file` is its name in messages.

    Raises ScenarioError naming file, line and column, with all problems up to a syntax error.
    """
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    if len(raw) > MAX_BYTES:
        raise _error(file, 1, 1, "the file is larger than 1 MiB")
    if isinstance(text, bytes):
        text = _decode(text, file)
    builder = _Builder(file)
    try:
        data = builder.document(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        builder.add((file, line, column), (), f"not valid YAML: {error.problem or error.context}")
        data = None
    except ReaderError as error:
        line, column = _line_and_column(text, error.position)
        character = f"U+{error.character:04X}"
        raise _error(file, line, column, f"the character {character} is not allowed") from None
    except (YAMLError, ValueError) as error:
        raise _error(file, 1, 1, f"not valid YAML: {_first_line(error)}") from None
    if builder.problems:
        raise ScenarioError(builder.problems)
    return Document(data, builder.positions)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _line_and_column(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, position - before.rfind("\n")


def _decode(raw: bytes, file: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise _error(file, line, column, "the file is not UTF-8 text") from None


def _error(file: str, line: int, column: int, message: str) -> ScenarioError:
    return ScenarioError([Problem("", message, file, line, column)])


class _Builder:
    """Builds plain data from parser events, collecting positions and problems on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.positions: dict[Path, Position] = {}
        self.problems: list[Problem] = []
        self.anchors: dict[str, tuple[Any, int] | None] = {}
        self.values = 0
        self.aliases = 0

    def document(self, events: Iterator[Event]) -> Any:
        """Return the data of the only document in `events`."""
        found: list[Any] = []
        for event in events:
            if isinstance(event, StreamStartEvent | StreamEndEvent | DocumentEndEvent):
                continue
            if isinstance(event, DocumentStartEvent):
                if found:
                    raise self._stop(event, "a second document begins here; one file has one")
                continue
            self.positions[()] = self._position(event)
            found.append(self._value(event, events, ()))
        if not found:
            raise _error(self.file, 1, 1, "the file is empty")
        return found[0]

    def add(self, position: Position, path: Path, message: str) -> None:
        """Note a problem and go on, unless there are too many to read."""
        self.problems.append(Problem(dotted(path), message, *position))
        if len(self.problems) >= MAX_PROBLEMS:
            raise ScenarioError(self.problems)

    def _position(self, event: Event) -> Position:
        return (self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _stop(self, event: Event, message: str) -> ScenarioError:
        return ScenarioError([*self.problems, Problem("", message, *self._position(event))])

    def _value(self, event: Event, events: Iterator[Event], path: Path) -> Any:
        if isinstance(event, AliasEvent):
            return self._alias(event)
        self._count(event, 1)
        if len(path) >= MAX_LEVELS:
            raise self._stop(event, f"more than {MAX_LEVELS} levels")
        before = self.values
        if isinstance(event, NodeEvent) and event.anchor:
            self.anchors[event.anchor] = None
        value = self._built(event, events, path)
        if isinstance(event, NodeEvent) and event.anchor:
            self.anchors[event.anchor] = (value, self.values - before + 1)
        return value

    def _built(self, event: Event, events: Iterator[Event], path: Path) -> Any:
        if tag := getattr(event, "tag", None):
            name = short(str(tag).replace("tag:yaml.org,2002:", "!!"))
            self.add(self._position(event), path, f"the tag '{name}' is not allowed; leave it out")
        if isinstance(event, MappingStartEvent):
            return self._mapping(events, path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(events, path)
        if isinstance(event, ScalarEvent):
            return self._scalar(event, path)
        raise self._stop(event, "something that is no YAML value")

    def _count(self, event: Event, values: int) -> None:
        self.values += values
        if self.values > MAX_VALUES:  # aliases inside aliases: small text, endless data
            raise self._stop(event, f"the file has more than {MAX_VALUES:,} values")

    def _alias(self, event: AliasEvent) -> Any:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise self._stop(event, f"more than {MAX_ALIASES} aliases")
        name = short(event.anchor)
        if event.anchor not in self.anchors:
            raise self._stop(event, f"there is no anchor '{name}' before this alias")
        known = self.anchors[event.anchor]
        if known is None:
            raise self._stop(event, f"the alias '{name}' stands inside its own anchor")
        value, values = known
        self._count(event, values)
        return value

    def _sequence(self, events: Iterator[Event], path: Path) -> list[Any]:
        result: list[Any] = []
        for event in events:
            if isinstance(event, SequenceEndEvent):
                break
            place = (*path, len(result))
            self.positions[place] = self._position(event)
            result.append(self._value(event, events, place))
        return result

    def _mapping(self, events: Iterator[Event], path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for event in events:
            if isinstance(event, MappingEndEvent):
                break
            if not isinstance(event, ScalarEvent):
                raise self._stop(event, "a key must be plain text")
            key = event.value
            if event.anchor or event.tag:
                self.add(self._position(event), path, "a key has no anchor and no tag")
            place = (*path, key)
            if key in result:
                self.add(self._position(event), place, "the key stands here twice")
            if key == "<<":
                message = "merge keys are not supported; a scenario can extend another (extends)"
                self.add(self._position(event), place, message)
            self.positions[place] = self._position(event)
            result[key] = self._value(next(events), events, place)
        return result

    def _scalar(self, event: ScalarEvent, path: Path) -> Any:
        text = event.value
        if event.style in ("'", '"', "|", ">"):
            return text
        if text in _NULLS:
            return None
        if text in _WORDS:
            return _WORDS[text]
        if _INT.match(text) or _FLOAT.match(text):
            value = _number(text)
            if value is None:
                self.add(self._position(event), path, f"'{short(text)}' is too large")
            return value
        if _NOT_FINITE.match(text):
            self.add(self._position(event), path, "NaN and infinity are not allowed")
            return None
        return text


def _number(text: str) -> int | float | None:
    if not _INT.match(text):
        value = float(text)
        return value if math.isfinite(value) else None
    if len(text) > MAX_DIGITS:
        return None
    base = {"0x": 16, "0o": 8}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)
