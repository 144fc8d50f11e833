"""Gaps between tokens of the same request, from the rows that replicas noted.

A decode step gives a token to all of its sequences, so its duration is the gap of each of them; of
skipped steps the durations lie on the straight lines of the costs. What had to wait while prompts
were computed alone, or had lost its place, is taken apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.cost.iteration import Lines, step_ps
from moesim.sim.serving.log import COLUMNS, Log

Ints = NDArray[np.int64]
_FAR = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """Runs of evenly spaced gaps: `steps` of them from `first` to `last`, each `weight` times."""

    first: Ints
    """Picoseconds."""
    last: Ints
    steps: Ints
    weight: Ints

    @property
    def count(self) -> int:
        """Gaps in all."""
        return int(np.dot(self.steps, self.weight))

    @property
    def total_ps(self) -> int:
        """Sum of all gaps."""
        twice, tokens = self.first + self.last, self.steps * self.weight
        high, low = np.divmod(twice, 1 << 31)  # no product leaves 64 bits below 4e9 tokens
        return ((int(np.dot(high, tokens)) << 31) + int(np.dot(low, tokens))) // 2


def columns(log: Log) -> dict[str, Ints]:
    """Return the rows of a log by column."""
    table = np.frombuffer(log.rows, dtype=np.int64).reshape(-1, len(COLUMNS))
    return {name: table[:, number] for number, name in enumerate(COLUMNS)}


def gaps(logs: Sequence[Log], begin_ps: int = 0) -> Gaps:
    """Return the gaps of all iterations that begin at `begin_ps` or later.

    Where a log's steps do not last what its times say of them (ranks that wait for each other), the
    gaps of a row are taken as equal.
    """
    parts: list[NDArray[np.int64]] = [np.zeros((0, 4), dtype=np.int64)]
    for log in logs:
        parts += _of(columns(log), log, begin_ps)
        resumed = np.array(log.resumed, dtype=np.int64)
        ones = np.ones_like(resumed)
        parts.append(np.stack([resumed, resumed, ones, ones], axis=1))
    first, last, steps, weight = np.concatenate(parts).T
    return Gaps(first=first, last=last, steps=steps, weight=weight)


def _of(rows: dict[str, Ints], log: Log, begin_ps: int) -> Iterator[Ints]:
    """Yield pieces (first, last, steps, weight)."""
    times = log.times
    decodes = (rows["sequences"] > 0) & (rows["start"] >= begin_ps)
    steps, cached = rows["steps"].copy(), rows["cached"].copy()
    took = rows["ends"] - rows["start"]
    waits = []
    for row, groups in _apart(rows, log.arrived):
        if not decodes[row]:
            continue
        lines = times.lines(int(rows["sequences"][row]))
        step = took[row] if steps[row] == 1 else step_ps(lines, int(cached[row]))
        ended = int(rows["start"][row]) + int(step)
        waits += [(ended - since, ended - since, 1, count) for since, count in groups if count]
        steps[row] -= 1
        cached[row] += rows["sequences"][row]
        took[row] -= step
    if waits:
        yield np.array(waits, dtype=np.int64)
    single = decodes & (steps == 1)
    yield np.stack([took[single], took[single], steps[single], rows["sequences"][single]], axis=1)
    many = np.flatnonzero(decodes & (steps > 1))
    for sequences in np.unique(rows["sequences"][many]):
        here = many[rows["sequences"][many] == sequences]
        yield _on_lines(
            times.lines(int(sequences)), cached[here], steps[here], int(sequences), took[here]
        )


def _apart(
    rows: dict[str, Ints], arrived: Sequence[tuple[int, int, int]]
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield decode rows whose first gaps differ, with groups of (last token, sequences) before."""
    came: dict[int, list[int]] = {}
    decodes = np.flatnonzero(rows["sequences"] > 0)
    places = np.searchsorted(rows["start"][decodes], [at for _, at, _ in arrived])
    for place, (_, _, last) in zip(places.tolist(), arrived, strict=True):
        if place < len(decodes):
            came.setdefault(int(decodes[place]), []).append(last)
    for row, groups in _stalled(rows):
        yield row, _with_arrived(groups, came.pop(row, []), 0)
    for row, lasts in came.items():
        since = int(rows["start"][row])
        yield row, _with_arrived([(since, int(rows["sequences"][row]))], lasts, since)


def _with_arrived(
    groups: list[tuple[int, int]], lasts: list[int], now: int
) -> list[tuple[int, int]]:
    """Return the groups with the latest sequences replaced by those that came from elsewhere."""
    held = sum(count for _, count in groups)
    lasts = lasts[max(0, len(lasts) - held) :]
    _resize(groups, held - len(lasts), now)
    return [*groups, *((last, 1) for last in lasts)]


def _stalled(rows: dict[str, Ints]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield decode rows after prompts alone, with groups of (last token, sequences) before it."""
    alone = (rows["sequences"] == 0) & (rows["steps"] > 0)
    decoding, ends = rows["decoding"], rows["ends"]
    before = np.concatenate([[0], decoding[:-1]])
    after_alone = np.concatenate([[False], alone[:-1]])
    waited = alone & ((before > 0) | after_alone)
    starts = np.flatnonzero(alone & ~after_alone)
    for start in starts[np.add.reduceat(waited, starts) > 0] if len(starts) else ():
        groups = [(int(ends[start - 1]) if start else 0, int(before[start]))]
        row = int(start)
        while row < len(alone) and alone[row]:
            _resize(groups, int(decoding[row]), int(ends[row]))
            row += 1
        if row < len(alone):
            _resize(groups, int(rows["sequences"][row]), int(rows["start"][row]))
            yield row, groups


def _resize(groups: list[tuple[int, int]], wanted: int, now: int) -> None:
    """Add a group that got its token now, or take from the latest those that lost their place."""
    held = sum(count for _, count in groups)
    if wanted > held:
        groups.append((now, wanted - held))
    while held > wanted:
        since, count = groups.pop()
        held -= count
        if held < wanted:
            groups.append((since, wanted - held))
            held = wanted


def _on_lines(lines: Lines, cached: Ints, steps: Ints, growth: int, took: Ints) -> Ints:
    """Return the pieces of rows of the same number of sequences, cut at the lines' knots."""
    knots = np.array([*lines.knots, _FAR], dtype=np.int64)
    starts, slopes = np.array(lines.starts), np.array(lines.slopes)
    pieces, owners = [], []
    left, place, owner = steps.copy(), cached.copy(), np.arange(len(steps))
    while len(left):
        at = np.searchsorted(knots, place, side="right") - 1
        run = np.minimum(left, -(-(knots[at + 1] - place) // growth))
        first = starts[at] + slopes[at] * place
        last = first + slopes[at] * growth * (run - 1)
        pieces.append(np.stack([first, last, run, np.full_like(run, growth)], axis=1))
        owners.append(owner)
        left, place = left - run, place + run * growth
        more = left > 0
        left, place, owner = left[more], place[more], owner[more]
    found, whose = np.concatenate(pieces), np.concatenate(owners)
    total = np.zeros_like(took)
    np.add.at(total, whose, (found[:, 0] + found[:, 1]) * found[:, 2] // 2)
    other = np.flatnonzero(total != took)
    if not len(other):
        return found
    mean = took[other] // steps[other]
    equal = np.stack([mean, mean, steps[other], np.full_like(mean, growth)], axis=1)
    return np.concatenate([found[~np.isin(whose, other)], equal])
