"""Published measurements in YAML: cases, the models and machines they name, pairs of them.

Only what every case needs is checked; all else is kept as it was written, since sources state
what they state. Readers of a case say which of its words they understood.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moesim.errors import Problem, ScenarioError
from moesim.spec.validate import read_document
from moesim.spec.yaml_text import Document
from moesim.spec.yaml_text import Path as KeyPath

Words = Mapping[str, Any]
"""A mapping as it was written."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was measured."""

    id: str
    kind: str
    words: Words
    """Everything that the file says of it."""

    def text(self, name: str) -> str:
        """Return what the case says under `name` as text; empty where it says nothing."""
        value = self.words.get(name)
        return "" if value is None else str(value)

    def part(self, name: str) -> Words:
        """Return a mapping of the case; empty where it has none."""
        value = self.words.get(name)
        return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFile:
    """The cases of a file, and what they refer to."""

    path: Path
    cases: tuple[Case, ...]
    models: Mapping[str, Words]
    hardware: Mapping[str, Words]
    pairs: tuple[Words, ...]
    """`moe_vs_dense` of a training file."""
    contrasts: tuple[Words, ...]
    ratios: tuple[Words, ...] = ()
    """`pairs` of an inference file: rows of one case over those of another."""


def read_cases(path: Path) -> CaseFile:
    """Return the cases in the file `path`.

    Raises ScenarioError with file, line and column of everything that keeps it from being read.
    """
    document = read_document(path)
    problems: list[Problem] = []
    data = document.data
    if not isinstance(data, Mapping) or not isinstance(data.get("cases"), list):
        at = document.at(())
        raise ScenarioError([Problem("cases", "must be there, a list of measured cases", *at)])
    cases = [
        case
        for number, words in enumerate(data["cases"])
        if (case := _case(words, ("cases", number), document, problems)) is not None
    ]
    problems += _twice(cases, document)
    if problems:
        raise ScenarioError(problems[:100])
    return CaseFile(
        path=path,
        cases=tuple(cases),
        models=_mappings(data, "models"),
        hardware=_mappings(data, "hardware"),
        pairs=_list(data, "moe_vs_dense"),
        contrasts=_list(data, "contrasts"),
        ratios=_list(data, "pairs"),
    )


def _case(words: Any, at: KeyPath, document: Document, problems: list[Problem]) -> Case | None:
    where = document.at(at)
    if not isinstance(words, Mapping):
        problems.append(Problem(f"cases[{at[-1]}]", "must be a mapping", *where))
        return None
    for name in ("id", "kind"):
        if not isinstance(words.get(name), str) or not words[name]:
            problems.append(Problem(f"cases[{at[-1]}].{name}", "must be there, a text", *where))
            return None
    return Case(words["id"], words["kind"], words)


def _twice(cases: list[Case], document: Document) -> list[Problem]:
    seen: set[str] = set()
    found = []
    for number, case in enumerate(cases):
        if case.id in seen:
            at = document.at(("cases", number, "id"))
            found.append(Problem(f"cases[{number}].id", f"'{case.id}' is there twice", *at))
        seen.add(case.id)
    return found


def _mappings(data: Mapping[str, Any], name: str) -> Mapping[str, Words]:
    section = data.get(name)
    if not isinstance(section, Mapping):
        return {}
    return {str(key): one for key, one in section.items() if isinstance(one, Mapping)}


def _list(data: Mapping[str, Any], name: str) -> tuple[Words, ...]:
    section = data.get(name)
    return (
        tuple(one for one in section if isinstance(one, Mapping))
        if isinstance(section, list)
        else ()
    )
