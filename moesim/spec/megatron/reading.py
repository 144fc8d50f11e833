"""The arguments of a Megatron-LM run while they are read: what each became, what was filled in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from moesim.errors import Problem, nearest
from moesim.spec.model import ModelSpec
from moesim.spec.scenario import Scenario
from moesim.spec.validate import models_in


@dataclass(frozen=True, slots=True)
class Given:
    """One argument with its values, where it stands."""

    name: str
    values: tuple[str, ...]
    line: int
    file: str = ""
    """Left out, the file that is read."""

    def __str__(self) -> str:
        return " ".join((f"--{self.name}", *self.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key that was written, and why."""

    value: Any
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A default of Megatron-LM that the scenario says, since moesim's own is another."""

    argument: str
    key: str
    value: Any
    own: Any
    """moesim's default."""


@dataclass(slots=True, kw_only=True)
class Reading:
    """Arguments, and what has been made of them so far."""

    file: str
    program: str = "Megatron-LM"
    schema: type[BaseModel] = Scenario
    """What is written: a scenario of training or of serving."""
    given: dict[str, Given] = field(default_factory=dict)
    scenario: dict[str, Entry] = field(default_factory=dict)
    model: dict[str, Entry] = field(default_factory=dict)
    mapped: set[str] = field(default_factory=set)
    """Arguments that a key says."""
    left: set[str] = field(default_factory=set)
    """Arguments whose values moesim does not model."""
    became: dict[str, list[str]] = field(default_factory=dict)
    filled: list[Filled] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def has(self, *names: str) -> bool:
        """Tell whether one of the arguments is given."""
        return any(name in self.given for name in names)

    def count(self, name: str, default: int = 0) -> int:
        """Return the whole number of an argument."""
        return int(self._number(name, default, int))

    def real(self, name: str, default: float) -> float:
        """Return the number of an argument."""
        return float(self._number(name, default, float))

    def word(self, name: str, default: str, allowed: Sequence[str] = ()) -> str:
        """Return the word of an argument; another one than those allowed is a problem."""
        if name not in self.given:
            return default
        value = self.given[name].values[0]
        if allowed and value not in allowed:
            hint = nearest(value, allowed)
            self.wrong(name, f"must be one of {', '.join(allowed)}, not '{value}'.{hint}")
            return default
        return value

    def _number(self, name: str, default: float, kind: type[int] | type[float]) -> float:
        if name not in self.given:
            return default
        text = self.given[name].values[0]
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            self.wrong(name, f"must be {what}, not '{text}'")
            return default

    def wrong(self, name: str, message: str) -> None:
        """Note that an argument is wrong, or contradicts others."""
        there = self.given.get(name, Given(name, (), 1))
        self.problems.append(Problem(f"--{name}", message, there.file or self.file, there.line, 1))

    def put(self, key: str, value: Any, *by: str, why: str = "") -> None:
        """Write a key of the scenario, or of the model ("model.hidden").

        `by` are the arguments that decide it; where none is given it is a default of the program.
        """
        of_model = key.startswith("model.")
        own = default_of(key, self.schema)
        there = [name for name in by if name in self.given]
        if not there and value == own:
            return
        if not there and by:
            self.filled.append(Filled(argument=by[0], key=key, value=value, own=own))
        said = ", ".join(str(self.given[name]) for name in there)
        said = said or (f"{self.program}'s default without --{by[0]}" if by else "")
        entry = Entry(value=value, why="; ".join(part for part in (said, why) if part))
        (self.model if of_model else self.scenario)[key] = entry
        self.mapped.update(there)
        for name in there:
            self.say(name, f"{key}: {yaml_value(value)}" + (f" ({why})" if why else ""))

    def say(self, name: str, text: str) -> None:
        """Note what became of an argument, if it is given."""
        if name in self.given:
            self.became.setdefault(name, []).append(text)

    def leave(self, name: str, text: str) -> None:
        """Note that the value of an argument is not modelled, and what would change, if given."""
        if name in self.given:
            self.left.add(name)
            self.say(name, text)


def yaml_value(value: Any) -> str:
    """Return one value as YAML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(yaml_value, value))}]"
    if isinstance(value, str) and any(letter in value for letter in "|*:#{}[]&!%@`'\""):
        return f'"{value}"'
    return "none" if value is None else str(value)


def default_of(key: str, schema: type[BaseModel] = Scenario) -> Any:
    """Return what moesim takes where a key is left out; None where it has to be given."""
    of_model = key.startswith("model.")
    kinds: Iterable[Any] = [ModelSpec if of_model else schema]
    *outer, last = key.removeprefix("model.").split(".")
    for part in outer:
        kinds = [
            inner for kind in kinds if part in kind.model_fields
            for inner in models_in(kind.model_fields[part].annotation)
        ]  # fmt: skip
    for kind in kinds:
        found = kind.model_fields.get(last)
        if found is not None and not found.is_required():
            return found.get_default(call_default_factory=True)
    return None
