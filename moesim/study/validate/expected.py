"""The errors of every group as they were recorded, and whether one got worse.

A group is what came from one source, for one class of model, kind of case, quality and kind of
figure. It got worse when the median or the 90th percentile of its absolute errors rose by more
than TOLERANCE, or when fewer of its figures could be compared.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moesim.errors import Problem, ScenarioError
from moesim.study.validate.record import Record
from moesim.study.validate.scores import Score, figure_of, scores, source_name

TOLERANCE = 0.01
"""One percentage point of error: assumed, above rounding and below what a mechanism moves."""

GROUP = ("source", "class", "kind", "quality", "metric")
COLUMNS = (*GROUP, "ran", "total", "median", "p90", "bias")

Name = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What moved against the record, one line for each group."""

    worse: tuple[str, ...]
    better: tuple[str, ...]
    new: tuple[str, ...]
    """Groups that ran and are not in the record."""


def group_of(record: Record) -> Name:
    """Return the values of GROUP for a record."""
    source, metric = source_name(record.source), figure_of(record)
    return (source, record.cls, record.kind, record.quality, metric)


def as_csv(records: Iterable[Record]) -> str:
    """Return the scores of `records` by group as CSV; errors as fractions, four digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in scores(records, group_of):
        errors = ("" if value is None else f"{value:.4f}" for value in _errors(one))
        writer.writerow((*one.name, one.ran, one.total, *errors))
    return out.getvalue()


def _errors(score: Score) -> tuple[float | None, ...]:
    return score.median, score.p90, score.bias


def read_expected(path: Path) -> dict[Name, Score]:
    """Return the recorded score of every group; ScenarioError where the file is no such record."""
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        message = f"must have the columns {','.join(COLUMNS)}, as --record writes them"
        raise ScenarioError([Problem("", message, str(path), 1, 1)])
    found = {}
    for number, row in enumerate(reader, start=2):
        try:
            one = _score(row)
        except (TypeError, ValueError):
            message = "is no row of a record: write it anew with --record"
            raise ScenarioError([Problem("", message, str(path), number, 1)]) from None
        found[one.name] = one
    return found


def _score(row: Mapping[str, str]) -> Score:
    median, p90, bias = (float(row[key]) if row[key] else None for key in ("median", "p90", "bias"))
    return Score(
        name=tuple(row[key] for key in GROUP),
        ran=int(row["ran"]),
        total=int(row["total"]),
        median=median,
        p90=p90,
        bias=bias,
    )


def changes(expected: Mapping[Name, Score], records: Iterable[Record]) -> Changes:
    """Return what of `records` is worse or better than `expected`, or not in it."""
    now = {one.name: one for one in scores(records, group_of)}
    worse, better = [], []
    for name, before in expected.items():
        title = " / ".join(name)
        after = now.get(name)
        if (after.ran if after else 0) < before.ran:
            worse.append(f"{title}: {after.ran if after else 0} ran, recorded {before.ran}")
        for what_of, old, new in _pairs(before, after):
            line = f"{title}: {what_of} {100 * new:.1f} %, recorded {100 * old:.1f} %"
            if new > old + TOLERANCE:
                worse.append(line)
            elif new < old - TOLERANCE:
                better.append(line)
    new_ones = (one for name, one in now.items() if one.ran and name not in expected)
    return Changes(
        worse=tuple(worse),
        better=tuple(better),
        new=tuple(f"{' / '.join(one.name)}: {one.ran} ran" for one in new_ones),
    )


def _pairs(before: Score, after: Score | None) -> Iterable[tuple[str, float, float]]:
    if after is None:
        return
    for name, old, new in (("median", before.median, after.median), ("p90", before.p90, after.p90)):
        if old is not None and new is not None:
            yield name, old, new
