"""YAML text to plain data, with the line and column of every key, and nothing dangerous.

Refused: files over 1 MiB, more than 64 aliases or levels, duplicate keys, tags, NaN and infinity.
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
    MappingEndEvent,
    MappingStartEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from moesim.errors import Problem, ScenarioError

MAX_BYTES = 2**20
MAX_ALIASES = 64
MAX_LEVELS = 64

Path = tuple[str | int, ...]
Position = tuple[str, int, int]

_INT = re.compile(r"[-+]?[0-9]+$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)$")
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = {"", "~", "null", "Null", "NULL"}
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}


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
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_yaml(text: str | bytes, file: str) -> Document:
    """Return the document in `text`; `file` is its name in messages.

    Raises ScenarioError naming file, line and column.
    """
    if len(text if isinstance(text, bytes) else text.encode("utf-8", "replace")) > MAX_BYTES:
        raise _error(file, 1, 1, "the file is larger than 1 MiB")
    if isinstance(text, bytes):
        text = _decode(text, file)
    try:
        _check_events(YAML(typ="safe", pure=True).parse(text), file)
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _error(file, line, column, f"not valid YAML: {error.problem}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise _error(file, 1, 1, f"not valid YAML: {_first_line(error)}") from None
    return _Builder(file).document(root)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _decode(raw: bytes, file: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise _error(file, line, column, "the file is not UTF-8 text") from None


def _error(file: str, line: int, column: int, message: str) -> ScenarioError:
    return ScenarioError([Problem("", message, file, line, column)])


def _check_events(events: Iterator[Any], file: str) -> None:
    aliases = depth = 0
    for event in events:
        aliases += isinstance(event, AliasEvent)
        depth += isinstance(event, (MappingStartEvent, SequenceStartEvent))
        depth -= isinstance(event, (MappingEndEvent, SequenceEndEvent))
        if aliases > MAX_ALIASES or depth > MAX_LEVELS:
            what = (
                f"more than {MAX_ALIASES} aliases"
                if aliases > MAX_ALIASES
                else (f"more than {MAX_LEVELS} levels")
            )
            mark = event.start_mark
            raise _error(file, mark.line + 1, mark.column + 1, what)


class _Builder:
    """Builds plain data from nodes, collecting positions and every problem on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.positions: dict[Path, Position] = {}
        self.problems: list[Problem] = []
        self.nodes = 0

    def document(self, root: Node | None) -> Document:
        if root is None:
            raise _error(self.file, 1, 1, "the file is empty")
        self.positions[()] = self._position(root)
        data = self._value(root, ())
        if self.problems:
            raise ScenarioError(self.problems)
        return Document(data, self.positions)

    def _position(self, node: Node) -> Position:
        return (self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _problem(self, node: Node, path: Path, message: str) -> None:
        self.problems.append(Problem(dotted(path), message, *self._position(node)))

    def _value(self, node: Node, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > 10**5:  # aliases inside aliases: small text, endless data
            raise _error(self.file, 1, 1, "the file expands to more than 100,000 values")
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._item(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        raise _error(self.file, 1, 1, "the file has something that is no YAML value")

    def _item(self, node: Node, path: Path) -> Any:
        self.positions[path] = self._position(node)
        return self._value(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        self._check_tag(node, path)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._problem(key_node, path, "a key must be plain text")
                continue
            key = key_node.value
            if key in result:
                self._problem(key_node, (*path, key), "the key stands here twice")
            self.positions[(*path, key)] = self._position(key_node)
            result[key] = self._value(value_node, (*path, key))
        return result

    def _check_tag(self, node: Node, path: Path) -> None:
        tag = str(node.tag)
        if tag not in _PLAIN_TAGS and tag not in (
            "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq",
        ):  # fmt: skip
            self._problem(node, path, f"the tag '{tag}' is not allowed")

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        self._check_tag(node, path)
        text = node.value
        if node.style in ("'", '"', "|", ">"):
            return text
        if text in _NULLS:
            return None
        if text in _WORDS:
            return _WORDS[text]
        if _INT.match(text):
            return self._integer(node, path)
        if _NOT_FINITE.match(text):
            self._problem(node, path, "NaN and infinity are not allowed")
            return None
        if _FLOAT.match(text):
            value = float(text)
            if not math.isfinite(value):
                self._problem(node, path, f"'{text}' is too large")
                return None
            return value
        return text

    def _integer(self, node: ScalarNode, path: Path) -> int | None:
        text = node.value
        if len(text) > 30:
            self._problem(node, path, "the number is too large")
            return None
        base = {"0x": 16, "0o": 8}.get(text[:2].lower(), 10)
        return int(text[2:] if base != 10 else text, base)
