"""The clock: simpy, with a deadlock message that names who waits."""

from collections.abc import Generator
from dataclasses import dataclass, field

import simpy

from moesim.errors import SimulationError

Steps = Generator[simpy.Event, object, None]
"""A process: a generator that yields the events it waits for."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A piece of work on a track: slices of one track never overlap."""

    track: str
    name: str
    start_s: float
    duration_s: float


@dataclass(slots=True)
class Clock:
    """A simulation's time."""

    environment: simpy.Environment = field(default_factory=simpy.Environment)
    waiting: dict[str, str] = field(default_factory=dict)
    """What each live process waits for, for the message when nothing moves any more."""

    @property
    def now_s(self) -> float:
        """The present, in simulated seconds."""
        return float(self.environment.now)

    def start(self, name: str, steps: Steps) -> simpy.Process:
        """Start the process `steps`, called `name` in messages."""
        self.waiting[name] = "its turn"
        return self.environment.process(self._watch(name, steps))

    def _watch(self, name: str, steps: Steps) -> Steps:
        yield from steps
        del self.waiting[name]

    def event(self) -> simpy.Event:
        """Return an event that somebody will trigger."""
        return self.environment.event()

    def after(self, delay_s: float) -> simpy.Event:
        """Return the event that `delay_s` seconds have passed."""
        return self.environment.timeout(delay_s)

    def run(self) -> float:
        """Run until nothing is left to happen; return the time.

        Raises SimulationError, naming who waits for what, if a process cannot go on.
        """
        self.environment.run()
        if self.waiting:
            stuck = "; ".join(f"{name} waits for {what}" for name, what in self.waiting.items())
            raise SimulationError(f"the simulation stopped at {self.now_s:.6g} s: {stuck}")
        return self.now_s
