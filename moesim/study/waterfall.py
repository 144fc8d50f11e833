"""From one scenario to another, key by key: what each difference does to step time and memory."""

from dataclasses import dataclass

from moesim.errors import MoesimError
from moesim.spec.differences import Difference, Pair, between, pair
from moesim.spec.scenario import Scenario
from moesim.study.resolve import Training, resolve
from moesim.study.simulate import simulate


@dataclass(frozen=True, slots=True)
class Measure:
    """What a scenario comes to."""

    step_s: float
    peak_bytes: float

    def minus(self, other: "Measure") -> "Measure":
        """Return the difference to `other`."""
        return Measure(self.step_s - other.step_s, self.peak_bytes - other.peak_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A difference, alone from the first scenario and in turn after the ones before it."""

    difference: Difference
    alone: Measure | None
    """None where the key cannot change alone."""
    in_turn: Measure | None
    """None where it changes together with the next effect."""
    reason: str = ""
    """Why it cannot change alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """The way from one scenario to another. The effects in turn sum to the whole exactly."""

    before: Measure
    after: Measure
    effects: tuple[Effect, ...]
    derived: tuple[Difference, ...]
    """What follows from the keys: data-parallel ranks, micro-batches."""

    @property
    def whole(self) -> Measure:
        """What all differences do together."""
        return self.after.minus(self.before)

    @property
    def interaction(self) -> Measure:
        """The whole minus the sum of the effects alone."""
        alone = [one.alone for one in self.effects if one.alone is not None]
        return self.whole.minus(
            Measure(sum(one.step_s for one in alone), sum(one.peak_bytes for one in alone))
        )


def waterfall(before: Scenario, after: Scenario) -> Waterfall:
    """Return what each difference between two scenarios does.

    Raises MoesimError where one of the two cannot be simulated; a scenario between them that
    cannot is told in its effect.
    """
    both = pair(before, after)
    first, last = resolve(before), resolve(after)
    start, end = _measured(first), _measured(last)
    alone: dict[str, Measure | str] = {}
    for one in both.differences:
        found = _try(both, frozenset((one.key,)))
        alone[one.key] = found if isinstance(found, str) else found.minus(start)
    return Waterfall(
        before=start,
        after=end,
        effects=tuple(_in_turn(both, alone, start)),
        derived=tuple(_derived(first, last)),
    )


def _in_turn(both: Pair, alone: dict[str, Measure | str], start: Measure) -> list[Effect]:
    """Change key after key; those that cannot yet wait, and those that never can go together."""
    waiting = [one.key for one in both.differences]
    known = {one.key: one for one in both.differences}
    done: frozenset[str] = frozenset()
    effects: list[Effect] = []
    while waiting:
        keys, now = _next(both, done, waiting)
        for key in keys:
            of_one = alone[key]
            reason = of_one if isinstance(of_one, str) else ""
            effects.append(Effect(
                difference=known[key], alone=None if isinstance(of_one, str) else of_one,
                in_turn=now.minus(start) if key == keys[-1] else None, reason=reason,
            ))  # fmt: skip
        start, done = now, done | set(keys)
        waiting = [key for key in waiting if key not in keys]
    return effects


def _next(both: Pair, done: frozenset[str], waiting: list[str]) -> tuple[list[str], Measure]:
    """Return the next keys to change, as few as possible, and what they lead to."""
    for key in waiting:
        found = _try(both, done | {key})
        if not isinstance(found, str):
            return [key], found
    for number in range(2, len(waiting)):
        found = _try(both, done | set(waiting[:number]))
        if not isinstance(found, str):
            return waiting[:number], found
    return waiting, _measured(resolve(between(both, done | set(waiting))))


def _try(both: Pair, keys: frozenset[str]) -> Measure | str:
    """Return what the scenario between comes to, or why it cannot be simulated."""
    try:
        return _measured(resolve(between(both, keys)))
    except MoesimError as error:
        return str(error).splitlines()[0]


def _measured(run: Training) -> Measure:
    found = simulate(run)
    return Measure(found.metrics.step_s, found.peak_bytes)


def _derived(before: Training, after: Training) -> list[Difference]:
    found = [
        Difference("dp", before.layout.dp, after.layout.dp),
        Difference("micro-batches per step", before.micro_batches, after.micro_batches),
        Difference("schedule", before.layout.schedule, after.layout.schedule),
    ]
    return [one for one in found if one.before != one.after]
