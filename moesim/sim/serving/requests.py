"""The requests of a run, as columns: what they ask for and when what happened to them."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from moesim.cost.iteration import PS_PER_S
from moesim.sim.serving.log import Log

NEVER = -1
"""A time that has not come."""


def ps(seconds: float) -> int:
    """Return `seconds` in whole picoseconds."""
    return round(seconds * PS_PER_S)


class Prefixes(Protocol):
    """Ids of blocks by request: a list of tuples, or whatever makes them when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, request: int, /) -> tuple[int, ...]: ...


@dataclass(slots=True)
class Requests:
    """One entry per request in each column; times in picoseconds, NEVER until they have come."""

    prompt: "array[int]"
    """Tokens of the prompt."""
    output: "array[int]"
    """Tokens that will come out. Schedulers do not look at it (law 6)."""
    arrival: "array[int]"
    allowed: "array[int]" = field(default_factory=lambda: array("q"))
    """Tokens that may come out at most, which is all that an engine knows; left empty, a request
    asks for as many as it gets (benchmarks that ignore the end of sequence)."""
    prefix: Prefixes | None = None
    """What each prompt begins with: ids of its leading blocks of `prefix_block` tokens, the last
    of which may be filled in part. Equal ids are equal content, of the blocks before them too."""
    prefix_block: int = 512
    """Tokens that an id of `prefix` stands for (512: Mooncake's traces, README of FAST25-release).
    """
    session: "array[int] | None" = None
    """The conversation of each request, where there are some."""
    turn: "array[int] | None" = None
    """The number of each request in its conversation, from 0."""
    logs: list[Log] | None = None
    """Where each replica puts a log of its iterations; None: nothing is noted."""
    scheduled: "array[int]" = field(init=False)
    """Start of the first iteration that took a part of the prompt."""
    first: "array[int]" = field(init=False)
    """End of the iteration that gave the first token."""
    finish: "array[int]" = field(init=False)
    preemptions: "array[int]" = field(init=False)
    cached: "array[int]" = field(init=False)
    """Tokens of the prompt that were found in the prefix cache."""

    def __post_init__(self) -> None:
        if not len(self.prompt) == len(self.output) == len(self.arrival):
            raise ValueError("prompts, outputs and arrivals must be as many")
        for column in (self.prefix, self.session, self.turn):
            if column is not None and len(column) != len(self.prompt):
                raise ValueError("prefixes, sessions and turns must be as many as the prompts")
        self.allowed = self.allowed or self.output
        for name in ("scheduled", "first", "finish"):
            setattr(self, name, array("q", [NEVER]) * len(self.prompt))
        for name in ("preemptions", "cached"):
            setattr(self, name, array("q", [0]) * len(self.prompt))

    def __len__(self) -> int:
        return len(self.prompt)


def requests(
    prompt: Iterable[int], output: Iterable[int], arrival_s: Iterable[float] | None = None
) -> Requests:
    """Return requests from lengths in tokens and arrivals in seconds; None: all at once.

    Raises ValueError where the columns differ in length.
    """
    prompts = array("q", prompt)
    times = array("q", [0]) * len(prompts)
    if arrival_s is not None:
        times = array("q", (ps(one) for one in arrival_s))
    return Requests(prompts, array("q", output), times)
