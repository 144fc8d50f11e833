"""The requests of a run, as columns: what they ask for and when what happened to them."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from moesim.cost.iteration import PS_PER_S

NEVER = -1
"""A time that has not come."""


def ps(seconds: float) -> int:
    """Return `seconds` in whole picoseconds."""
    return round(seconds * PS_PER_S)


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
    prefix: Sequence[Sequence[int]] | None = None
    """Of each request, ids of the leading blocks of its prompt, and of its output after that where
    a later prompt may repeat it; an id, not negative, stands for everything up to its end. None:
    nothing is shared."""
    prefix_tokens: int = 16
    """Tokens of the block that an id stands for."""
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
