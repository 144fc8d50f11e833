"""Decode steps that yield more than a token: how many, by a fixed schedule, and what they take.

Where guessed tokens are checked, a step yields p/q tokens per sequence on average. Step s ends with

    G(s + 1) = floor((s + 1) p / q)

tokens of each sequence that decodes since the start, so every step yields a whole number, all
sequences go on alike, and the sum over many steps has a closed form. That keeps skipping equal to
stepping; drawn numbers would end the skips at every step. What is lost is how accepted tokens
scatter from step to step and between sequences (assumed not to matter for means). Of its last step
a request gives away what it does not need.
"""

from bisect import bisect_right
from dataclasses import dataclass

from moesim.cost.iteration import Lines


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens per step, as a fraction, at least one."""

    p: int
    q: int

    def tokens(self, step: int) -> int:
        """Return the tokens of a sequence before step `step`, G(step)."""
        return step * self.p // self.q

    def step_of(self, tokens: int) -> int:
        """Return the first step before which there are `tokens` or more."""
        return -(-tokens * self.q // self.p)

    def sum(self, first: int, steps: int) -> int:
        """Return the sum of G over so many steps from `first` on."""
        return floor_sum(steps, self.q, self.p, first * self.p)

    def steps_ps(self, lines: Lines, cached: int, sequences: int, first: int, steps: int) -> int:
        """Return so many steps from `first` on; each leaves what it yields in the cache."""
        total, begun = 0, self.tokens(first)
        while steps:
            now = cached + sequences * (self.tokens(first) - begun)
            at = bisect_right(lines.knots, now) - 1
            run = min(steps, self._steps_on(lines, at, cached, sequences, first, begun))
            grown = self.sum(first, run) - run * begun
            total += run * (lines.starts[at] + lines.slopes[at] * cached)
            total += lines.slopes[at] * sequences * grown
            first, steps = first + run, steps - run
        return total

    def steps_until(
        self, lines: Lines, cached: int, sequences: int, *, first: int, most: int, span_ps: int
    ) -> tuple[int, int]:
        """Return the fewest steps, `most` at most, that take `span_ps` or longer, and their time.

        One step at least; by bisection.
        """
        low, high = 1, most
        while low < high:
            middle = (low + high) // 2
            if self.steps_ps(lines, cached, sequences, first, middle) >= span_ps:
                high = middle
            else:
                low = middle + 1
        return low, self.steps_ps(lines, cached, sequences, first, low)

    def _steps_on(
        self, lines: Lines, at: int, cached: int, sequences: int, first: int, begun: int
    ) -> int:
        """Return how many steps from `first` on begin on this line."""
        if at + 1 == len(lines.knots):
            return 1 << 60
        grown = -(-(lines.knots[at + 1] - cached) // sequences)
        return self.step_of(begun + grown) - first


def floor_sum(count: int, divisor: int, slope: int, start: int) -> int:
    """Return the sum of floor((slope i + start) / divisor) for i from 0 to count - 1.

    As Euclid's algorithm goes: whole parts in closed form, then slope and divisor change places
    (Graham, Knuth, Patashnik: Concrete Mathematics, section 3.5).
    """
    total = 0
    while count:
        total += count * (count - 1) // 2 * (slope // divisor) + count * (start // divisor)
        slope, start = slope % divisor, start % divisor
        most = slope * count + start
        if most < divisor:
            break
        count, start = divmod(most, divisor)
        slope, divisor = divisor, slope
    return total
