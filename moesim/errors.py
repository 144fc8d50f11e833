"""Everything that moesim raises on purpose.

MoesimError                exit code 1
├── ScenarioError          2  the user's YAML: every problem of it at once
├── ModelError             2  an architecture we cannot read: which model_type, which key
├── ProfileError           2  a figure this run needs and the profile lacks
├── CalibrationError       2  a measurement that cannot be trusted
└── SimulationError        1  ours: names the stage or request that waits
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


class MoesimError(Exception):
    """Any error that moesim raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file: where, and what is allowed there."""

    path: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}: " if self.file else ""
        what = f"{self.path}: " if self.path else ""
        return f"{where}{what}{self.message}"


class ScenarioError(MoesimError):
    """The user's YAML is wrong; `problems` lists everything found in it."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ModelError(MoesimError):
    """An architecture that cannot be read or is not modelled; names model_type and key."""

    exit_code = 2


class ProfileError(MoesimError):
    """A hardware or software figure that this run needs and the profile lacks."""

    exit_code = 2


class CalibrationError(MoesimError):
    """A measurement that cannot be trusted."""

    exit_code = 2


class SimulationError(MoesimError):
    """A fault of moesim itself, or an impossible schedule."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the allowed word closest to `word`, or an empty text."""
    matches = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""
