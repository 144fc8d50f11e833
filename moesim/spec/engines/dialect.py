"""An engine's command line: its names, and how words become arguments.

Four classes of arguments, as of Megatron-LM's: mapped (a key says them), without effect, not
modelled (with what would change), unknown (an error with the nearest known name).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from moesim.errors import Problem, nearest
from moesim.spec.megatron.names import names
from moesim.spec.megatron.reading import Given
from moesim.spec.megatron.shell import Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The arguments of one engine; names without dashes in front, `-` for `_`."""

    engine: str
    """The name in moesim."""
    program: str
    """The name that messages say."""
    aliases: Mapping[str, str]
    """Other names, short ones with their dash (`-tp`)."""
    mapped_flags: frozenset[str]
    mapped_values: frozenset[str]
    silent_flags: frozenset[str]
    silent_values: frozenset[str]
    unmodelled_flags: Mapping[str, str]
    unmodelled_values: Mapping[str, str]
    glued: frozenset[str] = frozenset()
    """Short names that numbers are glued to (`-O3`)."""
    nulls: frozenset[str] = frozenset()
    """Keys of the YAML for which null is not as if they were left out."""
    several: frozenset[str] = frozenset()
    """Arguments that take several values."""
    reasons: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Why one has no effect, where that is more than "nothing of time or memory"."""

    @property
    def flags(self) -> frozenset[str]:
        """All arguments without a value."""
        return self.mapped_flags | self.silent_flags | self.unmodelled_flags.keys()

    @property
    def values(self) -> frozenset[str]:
        """All arguments with values."""
        return self.mapped_values | self.silent_values | self.unmodelled_values.keys()


@dataclass(slots=True, kw_only=True)
class Words:
    """What the words of a command come to."""

    given: dict[str, Given] = field(default_factory=dict)
    unknown: list[Given] = field(default_factory=list)
    loose: list[Word] = field(default_factory=list)
    """Words before the first argument, or behind a flag: the model."""
    problems: list[Problem] = field(default_factory=list)


def read_words(words: Sequence[Word], dialect: Dialect, file: str) -> Words:
    """Return the arguments in `words`; the last of several of one name counts, as in argparse."""
    found = Words()
    for one in _options(words, dialect, found.loose):
        add(found, one, dialect, file)
    return found


def add(found: Words, one: Given, dialect: Dialect, file: str) -> None:
    """Add an argument: folded (`--json.key value`), checked for its number of values."""
    outer, dot, inner = one.name.partition(".")
    if dot and one.name not in dialect.flags | dialect.values and outer in dialect.values:
        one = _folded(found.given.get(outer), outer, inner, one)
    if one.name not in dialect.flags and one.name not in dialect.values:
        found.unknown.append(one)
        return
    if (message := _wrong_number(one, dialect)) is not None:
        found.problems.append(Problem(f"--{one.name}", message, one.file or file, one.line, 1))
        return
    found.given[one.name] = one


def _folded(before: Given | None, outer: str, inner: str, one: Given) -> Given:
    """`--config.key value` is a key of the JSON that --config takes."""
    held = json_of(before.values[0]) if before is not None and before.values else {}
    data = held if isinstance(held, dict) else {}
    text = one.values[0] if one.values else "true"
    parsed = json_of(text)
    data[inner.replace("-", "_")] = text if parsed is None else parsed
    return Given(outer, (json.dumps(data),), one.line, one.file)


def json_of(text: str) -> Any:
    """Return what JSON text says; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _options(words: Sequence[Word], dialect: Dialect, loose: list[Word]) -> Iterator[Given]:
    current: Given | None = None
    for word in words:
        if re.match(r"-{1,2}[A-Za-z]", word.text):
            if current is not None:
                yield _negated(current, dialect)
            current = _named(word, dialect)
        elif current is None or _full(current, dialect):
            loose.append(word)
        else:
            current = replace(current, values=(*current.values, word.text))
    if current is not None:
        yield _negated(current, dialect)


def _named(word: Word, dialect: Dialect) -> Given:
    text, equals, value = word.text.partition("=")
    short = next((one for one in dialect.glued if re.fullmatch(rf"{one}\d+", text)), "")
    if short:
        text, equals, value = short, "=", text.removeprefix(short)
    plain = text.lstrip("-").replace("_", "-")
    head, dot, inner = plain.partition(".")
    if dot and f"-{head}" in dialect.aliases:  # -cc.key value
        plain = f"{dialect.aliases[f'-{head}']}.{inner}"
    name = dialect.aliases.get(text) or dialect.aliases.get(plain) or plain
    return Given(name, (value,) if equals else (), word.line)


def _full(one: Given, dialect: Dialect) -> bool:
    """Tell whether an argument takes no more values, so that the next word stands for itself."""
    if one.name in dialect.several or one.name not in dialect.flags | dialect.values:
        return False
    bare = one.name.removeprefix("no-")
    takes = one.name in dialect.values or bare in dialect.values
    return len(one.values) >= 1 if takes else True


def _negated(one: Given, dialect: Dialect) -> Given:
    """`--no-X` is X that is switched off."""
    bare = one.name.removeprefix("no-")
    if bare == one.name or one.name in dialect.flags or bare not in dialect.flags:
        return one
    return Given(bare, ("false", *one.values), one.line)


def _wrong_number(one: Given, dialect: Dialect) -> str | None:
    if one.name in dialect.flags and one.name not in dialect.values:
        if one.values and one.values not in (("true",), ("false",), ("True",), ("False",)):
            return f"takes no value, not '{' '.join(one.values)}'"
        return None
    if not one.values:
        return "needs a value"
    if len(one.values) > 1 and one.name not in dialect.several:
        return f"takes one value, not {len(one.values)}: {' '.join(one.values)}"
    return None


def unknown_problem(one: Given, dialect: Dialect, file: str) -> Problem:
    """Return the problem that an argument is not known, with the nearest one that is."""
    hint = nearest(one.name, sorted(dialect.flags | dialect.values))
    hint = re.sub(r"'(.*)'", r"'--\1'", hint)
    message = f"unknown argument.{hint} --allow-unknown lists it and goes on"
    return Problem(f"--{one.name}", message, one.file or file, one.line, 1)


def aliases(text: str) -> Mapping[str, str]:
    """Return a table of aliases from lines `NAME: ALIAS ALIAS ...`."""
    table: dict[str, str] = {}
    for line in text.strip().splitlines():
        name, _, others = line.partition(":")
        table |= dict.fromkeys(names(others), name.strip())
    return MappingProxyType(table)
