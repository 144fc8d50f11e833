"""What a reader returns, and how rows of the same thing become one."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from moesim.calibrate.measurements import is_outcome

Cell = str | int | float | bool | None
Row = dict[str, Cell]


@dataclass(frozen=True, slots=True)
class ClassTime:
    """The kernels of one class in a trace: how many, how long, how many of them gave a row."""

    name: str
    kernels: int
    total_us: float
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a file gave."""

    tables: Mapping[str, list[Row]]
    """Rows by kind of table, one for each time that something was measured."""
    left_out: Mapping[str, int] = field(default_factory=Counter)
    """How often something was left out, by reason."""
    notes: tuple[str, ...] = ()
    """What was assumed, and what to know before these rows are trusted."""
    classes: tuple[ClassTime, ...] = ()
    """Of a trace: where the time of its kernels went."""


def merged(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each thing that was measured: the median, and how many `repeats` it has.

    The same thing is the same in every column but those that say how it went.
    """
    same: dict[tuple[tuple[str, Cell], ...], list[Row]] = {}
    for row in rows:
        asked = tuple(sorted((name, cell) for name, cell in row.items() if not is_outcome(name)))
        same.setdefault(asked, []).append(row)
    return [_median(found) for found in same.values()]


def _median(found: list[Row]) -> Row:
    row = {name: _middle(found, name) if is_outcome(name) else found[0][name] for name in found[0]}
    return {**row, "repeats": len(found)}


def _middle(found: list[Row], name: str) -> Cell:
    numbers = [cell for row in found if isinstance(cell := row[name], int | float)]
    return float(f"{median(numbers):.6g}") if numbers else None
