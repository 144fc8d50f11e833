"""What an engine's iteration takes: a decode step in closed form over many steps, or a mixed one.

All times are whole picoseconds and straight lines of the tokens in the cache between knots, so the
sum over many steps is exact.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

PS_PER_S = 10**12

Chunk = tuple[int, int]
"""Tokens of a prompt that an iteration computes, and those computed before."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Picoseconds of a decode step of n sequences: starts[i] + slopes[i] * cached tokens.

    Line i holds from knots[i] cached tokens, of all sequences together, to the next knot.
    """

    knots: tuple[int, ...]
    starts: tuple[int, ...]
    slopes: tuple[int, ...]


class IterationTimes(Protocol):
    """What a replica asks of its costs."""

    def lines(self, sequences: int) -> Lines:
        """Return the decode step of so many sequences."""
        ...

    def attention(self, sequences: int) -> Lines:
        """Return the attention alone of a decode step of so many sequences."""
        ...

    def common_ps(self, tokens: int, sequences: int, everyone: int | None = None) -> int:
        """Return everything but attention of an iteration.

        `tokens` and `sequences` are of the fullest rank, `everyone` the tokens of all ranks; left
        out, there is only one.
        """
        ...

    def chunks_ps(self, chunks: Sequence[Chunk]) -> int:
        """Return the attention of chunks of prompts."""
        ...

    def mixed_ps(self, sequences: int, cached: int, chunks: Sequence[Chunk]) -> int:
        """Return an iteration that computes chunks of prompts, and decodes so many sequences."""
        ...

    def least_ps(self, sequences: int) -> int:
        """Return what an iteration takes at least: its host works beside the device."""
        ...


def step_ps(lines: Lines, cached: int) -> int:
    """Return one decode step over `cached` tokens."""
    at = bisect_right(lines.knots, cached) - 1
    return lines.starts[at] + lines.slopes[at] * cached


def steps_ps(lines: Lines, cached: int, growth: int, steps: int) -> int:
    """Return so many steps one after the other; each leaves `growth` tokens more in the cache.

    On one line: k a + b (k c + g k (k - 1) / 2).
    """
    total = 0
    while steps:
        at = bisect_right(lines.knots, cached) - 1
        run = min(steps, _steps_on(lines, at, cached, growth))
        total += run * lines.starts[at]
        total += lines.slopes[at] * (run * cached + growth * (run * (run - 1) // 2))
        cached += run * growth
        steps -= run
    return total


def steps_until(
    lines: Lines, cached: int, growth: int, *, most: int, span_ps: int
) -> tuple[int, int]:
    """Return the fewest steps, `most` at most, that take `span_ps` or longer, and what they take.

    One step at least. On each line the last step is found by bisection of the closed form.
    """
    done = total = 0
    while done < most and total < span_ps:
        at = bisect_right(lines.knots, cached) - 1
        run = min(most - done, _steps_on(lines, at, cached, growth))
        start, slope = lines.starts[at], lines.slopes[at]
        whole = run * start + slope * (run * cached + growth * (run * (run - 1) // 2))
        if total + whole >= span_ps:
            low, high = 1, run
            while low < high:
                k = (low + high) // 2
                some = k * start + slope * (k * cached + growth * (k * (k - 1) // 2))
                low, high = (low, k) if total + some >= span_ps else (k + 1, high)
            run = low
            whole = run * start + slope * (run * cached + growth * (run * (run - 1) // 2))
        total += whole
        done += run
        cached += run * growth
    return done, total


def _steps_on(lines: Lines, at: int, cached: int, growth: int) -> int:
    """Return how many steps begin on this line."""
    knots = lines.knots
    if at + 1 == len(knots) or not growth:
        return 1 << 60
    return -(-(knots[at + 1] - cached) // growth)


@dataclass(slots=True)
class TabledTimes:
    """Iteration times from functions in seconds, each asked once per place and kept.

    An iteration is everything but attention for all of its tokens, and attention: of the sequences
    that decode, together, and of each chunk.
    """

    decode_s: Callable[[int], tuple[Sequence[int], Sequence[float]]]
    """Places in cached tokens, from 0 up, and the seconds of so many sequences' attention there."""
    batch_s: Callable[[int, int, int], float]
    """Everything but attention: tokens, sequences that get a token, tokens of all ranks."""
    attend_s: Callable[[int, int], float]
    """Attention of a chunk of a prompt, of so many tokens after so many."""
    least_s: Callable[[int], float] | None = None
    """What an iteration takes at least, by sequences that get a token; None: no such bound."""
    known: dict[int, Lines] = field(default_factory=dict)
    alone: dict[int, Lines] = field(default_factory=dict)
    batches: dict[tuple[int, int, int], int] = field(default_factory=dict)
    attended: dict[Chunk, int] = field(default_factory=dict)
    leasts: dict[int, int] = field(default_factory=dict)

    def lines(self, sequences: int) -> Lines:
        """Return the decode step of so many sequences."""
        found = self.known.get(sequences)
        if found is None:
            found = raised(self.attention(sequences), self.common_ps(sequences, sequences))
            found = self.known[sequences] = floored(found, self.least_ps(sequences))
        return found

    def attention(self, sequences: int) -> Lines:
        """Return the attention alone of a decode step of so many sequences."""
        found = self.alone.get(sequences)
        if found is None:
            found = self.alone[sequences] = through(*self.decode_s(sequences))
        return found

    def chunks_ps(self, chunks: Sequence[Chunk]) -> int:
        """Return the attention of chunks of prompts."""
        return sum(self._attend(chunk) for chunk in chunks)

    def mixed_ps(self, sequences: int, cached: int, chunks: Sequence[Chunk]) -> int:
        """Return an iteration that computes chunks of prompts, and decodes so many sequences."""
        total = step_ps(self.attention(sequences), cached) if sequences else 0
        tokens, attended = sequences, self.attended
        for chunk in chunks:
            tokens += chunk[0]
            known = attended.get(chunk)
            total += self._attend(chunk) if known is None else known
        together = sequences + len(chunks)
        common = self.batches.get((tokens, together, tokens))
        total += self.common_ps(tokens, together) if common is None else common
        if self.least_s is None:
            return total
        least = self.leasts.get(together)
        least = self.least_ps(together) if least is None else least
        return total if total > least else least

    def least_ps(self, sequences: int) -> int:
        """Return what an iteration takes at least."""
        if self.least_s is None:
            return 0
        found = self.leasts.get(sequences)
        if found is None:
            found = self.leasts[sequences] = round(self.least_s(sequences) * PS_PER_S)
        return found

    def common_ps(self, tokens: int, sequences: int, everyone: int | None = None) -> int:
        """Return everything but attention of an iteration."""
        key = (tokens, sequences, tokens if everyone is None else everyone)
        found = self.batches.get(key)
        if found is None:
            found = self.batches[key] = round(self.batch_s(*key) * PS_PER_S)
        return found

    def _attend(self, chunk: Chunk) -> int:
        found = self.attended.get(chunk)
        if found is None:
            found = self.attended[chunk] = round(self.attend_s(*chunk) * PS_PER_S)
        return found


def raised(lines: Lines, more_ps: int) -> Lines:
    """Return `lines`, so much higher."""
    return Lines(lines.knots, tuple(start + more_ps for start in lines.starts), lines.slopes)


def floored(lines: Lines, least_ps: int) -> Lines:
    """Return the larger of `lines`, which nowhere fall, and a number."""
    if least_ps <= step_ps(lines, lines.knots[0]):
        return lines
    knots, starts, slopes = [lines.knots[0]], [least_ps], [0]
    ends = (*lines.knots[1:], None)
    for knot, end, start, slope in zip(lines.knots, ends, lines.starts, lines.slopes, strict=True):
        crossed = knot if start + slope * knot >= least_ps else end
        if crossed is end and slope > 0:
            crossed = -(-(least_ps - start) // slope)
        if crossed is None or (end is not None and crossed >= end):
            continue
        if crossed == knots[-1]:
            knots.pop(), starts.pop(), slopes.pop()
        knots.append(crossed)
        starts.append(start)
        slopes.append(slope)
    return Lines(tuple(knots), tuple(starts), tuple(slopes))


def through(places: Sequence[int], seconds: Sequence[float]) -> Lines:
    """Return the lines through these points; the last one goes on.

    Starts are rounded so that each line meets its first point; slopes to whole picoseconds.
    """
    starts, slopes = [], []
    for number in range(len(places) - 1):
        here, there = places[number], places[number + 1]
        slope = round((seconds[number + 1] - seconds[number]) / (there - here) * PS_PER_S)
        slopes.append(slope)
        starts.append(round(seconds[number] * PS_PER_S) - slope * here)
    return Lines(tuple(places[:-1]), tuple(starts), tuple(slopes))
