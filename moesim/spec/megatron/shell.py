"""Reads a command line or a launch script as the shell would, as far as arguments go.

Assignments (`TP=8`, `ARGS=( ... )`, `ARGS="..."`), `$X`, `${X}`, `${X:-default}`, `${X[@]}`,
quotes, comments and line continuations are understood; nothing is run. A word that needs what is
not there keeps a mark, and is an error only where it reaches an argument that has an effect.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from moesim.errors import Problem, ScenarioError
from moesim.spec.megatron import silent

_VARIABLE = re.compile(
    r"\$(?:\{([A-Za-z_]\w*)(?:\[[@*]\])?(?::?-([^}]*))?\}|([A-Za-z_]\w*|[@*#?0-9]))"
)
_COMMAND = re.compile(r"\$\(\(.*?\)\)|\$\([^()]*\)|`[^`]*`")
_ASSIGNED = re.compile(r"(?:(?:export|local|readonly|declare)\s+(?:-\w+\s+)*)?([A-Za-z_]\w*)(\+?)=")
_YAML_LINE = re.compile(r"^\s*(--[\w-]+):[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_MARK = re.compile("\x00(.*?)\x01")
_REDIRECT = re.compile(r"(?:\d|&)?>>?(.*)")
_SPLIT, _SPACE = "\x02", "\x03"


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command, and the line where it stands."""

    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The arguments of the trainer, and those of the launcher (torchrun) before it."""

    words: tuple[Word, ...]
    launcher: tuple[Word, ...] = ()


@dataclass(slots=True)
class _State:
    file: str
    variables: dict[str, tuple[str, ...]]
    problems: list[Problem] = field(default_factory=list)


def read_command(text: str, file: str, variables: Mapping[str, str] | None = None) -> Command:
    """Return the arguments in `text`, the content of `file`; `variables` are set beforehand.

    The command is the last one with a Python file and options behind it; without one, a text of
    options alone, a list of `--name: value` lines, or all arrays of a script.
    Raises ScenarioError, with the line, where a variable is not set.
    """
    state = _new_state(file, variables)
    if _YAML_LINE.search(text):
        text = _YAML_LINE.sub(_as_option, text)
    commands = list(_commands(text, state))
    for words in reversed(commands):
        split = _after_program(words)
        if split is not None and any(word.text.startswith("--") for word in words[split:]):
            return _checked(Command(words=words[split:], launcher=words[:split]), state)
    loose = [word for words in commands if words[0].text.startswith("--") for word in words]
    if not loose:
        loose = list(_in_variables(state, set(variables or ())))
    return _checked(Command(words=tuple(loose)), state)


def _new_state(file: str, variables: Mapping[str, str] | None) -> _State:
    return _State(file, {name: (value,) for name, value in (variables or {}).items()})


def read_commands(
    text: str, file: str, variables: Mapping[str, str] | None = None
) -> list[tuple[Word, ...]]:
    """Return the words of every command in `text`; `settled` says what is not set in them."""
    return list(_commands(text, _new_state(file, variables)))


def settled(words: tuple[Word, ...], file: str, harmless: frozenset[str]) -> tuple[Word, ...]:
    """Return the words where all that matters is set; a variable of `harmless` arguments may lack.

    Raises ScenarioError, with the line.
    """
    state = _new_state(file, None)
    return _checked(Command(words=words), state, harmless).words


def _in_variables(state: _State, given: set[str]) -> Iterator[Word]:
    """Yield the words of all variables that hold arguments, in the order of the script."""
    for name, values in state.variables.items():
        if name not in given and values and values[0].strip().startswith("--"):
            yield from (Word(part, 1) for part in (values if values[1:] else values[0].split()))


def _as_option(found: "re.Match[str]") -> str:
    name, value = found[1], found[2].partition(" #")[0].strip()
    if value.lower() == "true":
        return name
    return "" if value.lower() in ("false", "null", "") else f"{name} {_quoted(value)}"


def _quoted(value: str) -> str:
    if value[:1] in "\"'":
        return value
    return value.strip("[]").replace(",", " ") if value.startswith("[") else f'"{value}"'


def _after_program(words: tuple[Word, ...]) -> int | None:
    for number, word in enumerate(words):
        if word.text.endswith(".py"):
            return number + 1
    return None


def _checked(command: Command, state: _State, harmless: frozenset[str] = silent.VALUES) -> Command:
    """Return the command; what is not set matters only where an argument has an effect."""
    words: list[Word] = []
    name = ""
    for word in command.words:
        text = word.text
        name = text[2:].partition("=")[0] if text.startswith("--") else name
        marks = _MARK.findall(text)
        if marks and name.replace("_", "-") in harmless:
            text = _named(text)
        else:
            state.problems += [_unset(mark, word, state.file) for mark in marks]
        words.append(Word(text, word.line))
    if state.problems:
        raise ScenarioError(state.problems)
    if not words:
        message = "holds no arguments: none begins with --"
        raise ScenarioError([Problem("", message, state.file, 1, 1)])
    return Command(words=tuple(words), launcher=command.launcher)


def _named(text: str) -> str:
    return _MARK.sub(lambda found: f"${{{found[1]}}}", text)


def _unset(name: str, word: Word, file: str) -> Problem:
    shown = _named(word.text)
    if not re.fullmatch(r"\w+|[@*#?]", name):
        message = f"'{name}' would have to be run; put what it gives in its place"
    else:
        message = f"${{{name}}} in '{shown}' is not set; give it by --var {name}=VALUE"
    return Problem("", message, file, word.line, 1)


def _commands(text: str, state: _State) -> Iterator[tuple[Word, ...]]:
    """Yield the words of each command; assignments are kept for the commands after them."""
    for raw, line in _statements(text):
        rest = raw.strip()
        while (found := _ASSIGNED.match(rest)) is not None:
            rest = _assign(found[1], rest[found.end() :], line, state, more=bool(found[2]))
        if words := _without_redirection(list(_words(rest, line, state))):
            yield words


def _without_redirection(words: list[Word]) -> tuple[Word, ...]:
    kept: list[Word] = []
    skip = False
    for word in words:
        found = _REDIRECT.fullmatch(word.text)
        if found is None and not skip:
            kept.append(word)
        skip = found is not None and not found[1]
    return tuple(kept)


def _assign(name: str, rest: str, line: int, state: _State, *, more: bool) -> str:
    """Store one value, or one array in brackets; return what stands behind it."""
    if rest.startswith("("):
        end = _closing(rest)
        values = tuple(word.text for word in _words(rest[1:end], line, state))
        after = rest[end + 1 :]
    else:
        raw, after = _first_word(rest)
        quoted = raw if "'" in raw or '"' in raw else f'"{raw}"'
        values = ("".join(word.text for word in _words(quoted, line, state)),)
    before = state.variables.get(name, ()) if more else ()
    state.variables[name] = before + values
    return after.strip()


def _closing(text: str) -> int:
    """Return where the bracket that opens `text` closes; quotes hide brackets."""
    depth, quote = 0, ""
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
            if depth == 0:
                return i
    return len(text)


def _first_word(text: str) -> tuple[str, str]:
    quote, depth = "", 0
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'`":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter.isspace() and depth == 0:
            return text[:i], text[i:]
    return text, ""


def _statements(text: str) -> Iterator[tuple[str, int]]:
    """Yield statements without comments and continuations, with their first line."""
    text = text.replace("\\\r\n", " \v").replace("\\\n", " \v").replace("\r", "")
    part, quote, depth, line, first = "", "", 0, 1, 1
    i = 0
    while i < len(text):
        letter = text[i]
        line += letter in "\n\v"
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#" and (not part or part[-1].isspace()):
            end = re.compile(r"[\n\v]").search(text, i)
            i = end.start() if end else len(text)
            continue
        elif letter in "()":
            depth = max(0, depth + (1 if letter == "(" else -1))
        if not quote and depth == 0 and _ends(text, i):
            yield part.replace("\v", " "), first
            part, first = "", line
        else:
            part += letter
        i += 1
    yield part.replace("\v", " "), first


def _ends(text: str, i: int) -> bool:
    """Tell whether a statement ends at `i`; a pipe stands alone, as layouts have `|` in them."""
    alone = text[i - 1 : i].isspace() or text[i : i + 2] in ("&&", "||")
    return text[i] in "\n;" or (text[i] in "&|" and alone and text[i + 1 : i + 2] != ">")


def _words(text: str, line: int, state: _State) -> Iterator[Word]:
    """Yield the words of a statement, variables in place."""
    part, started, quote = "", False, ""
    for letter in _expanded(text, state):
        if quote:
            if letter == quote:
                quote = ""
            else:
                part += "\n" if letter == _SPLIT else letter
        elif letter in "\"'":
            quote, started = letter, True
        elif letter.isspace() or letter == _SPLIT:
            if started or part:
                yield Word(_clean(part), line)
            part, started = "", False
        else:
            part += letter
    if started or part:
        yield Word(_clean(part), line)


def _clean(part: str) -> str:
    return part.replace(_SPACE, " ").replace("\\", "").strip("\n")


def _expanded(text: str, state: _State) -> str:
    """Return `text` with its variables replaced, outside single quotes."""
    pieces = re.split(r"('[^']*')", text) if text.count('"') == 0 else [text]
    return "".join(piece if piece.startswith("'") else _replaced(piece, state) for piece in pieces)


def _replaced(text: str, state: _State) -> str:
    text = _COMMAND.sub(lambda found: f"\x00{found[0].replace(' ', _SPACE)}\x01", text)
    text = re.sub(r'"(\$\{\w+\[@\]\})"', r"\1", text)  # an array in quotes: a word per element

    def value(found: "re.Match[str]") -> str:
        name = found[1] or found[3]
        if name in state.variables:
            values = state.variables[name]
            return (
                _SPLIT.join(one.replace(" ", _SPACE) for one in values)
                if values[1:]
                else ("".join(values))
            )
        if found[2] is not None:
            return found[2]
        return "" if name in "@*" else f"\x00{name}\x01"

    return _VARIABLE.sub(value, text)
