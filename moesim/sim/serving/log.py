"""What a replica notes of its iterations: a row per change, however many steps it skips.

Decode steps last what their straight lines say, so a row keeps where they begin on them; the gaps
between tokens and the time series are worked out from the rows afterwards.
"""

from array import array
from dataclasses import dataclass, field
from struct import Struct

from moesim.cost.iteration import IterationTimes

COLUMNS = (
    "start", "ends", "steps", "sequences", "cached", "prompt_tokens", "decoding", "prefilling",
    "queued", "used_blocks", "yielded",
)  # fmt: skip
"""start, ends: picoseconds. steps: iterations in the row. sequences: those that got a token in each
of them. cached: tokens in the cache of those in the first step. prompt_tokens: tokens of prompts
computed. decoding, prefilling, queued, used_blocks: what stands when the row ends: requests that
decode, that have a part of their prompt computed, and that wait; blocks in use. yielded: tokens
that each sequence got, as many as steps where nothing is guessed."""

packed = Struct(f"{len(COLUMNS)}q").pack
"""Makes the bytes of a row: three times as quick as extending an array by a tuple."""


@dataclass(slots=True)
class Log:
    """Rows of COLUMNS, one after the other, and what happens seldom."""

    times: IterationTimes
    """What the iterations of the replica take."""
    rows: "array[int]" = field(default_factory=lambda: array("q"))
    evictions: list[int] = field(default_factory=list)
    """When a request lost its place."""
    resumed: list[int] = field(default_factory=list)
    """Gaps of tokens between which a request had lost its place, in picoseconds."""
    lost: dict[int, int] = field(default_factory=dict)
    """When the last token came of requests that have lost their place."""
    again: dict[int, int] = field(default_factory=dict)
    """When requests got their first token after they had lost their place."""
    arrived: list[tuple[int, int, int]] = field(default_factory=list)
    """Requests that got their last token elsewhere, when they came, and when they had got it."""
    firsts: "array[int]" = field(default_factory=lambda: array("q"))
    """When requests got their first token of all."""
    hits: "array[int]" = field(default_factory=lambda: array("q"))
    """In turn, when a request began whose prompt was found in part, and how many tokens of it."""
    place: tuple[int, int, int] = (0, 0, 0)
    """Number of the pool, of the replica in it, and of the engine in that: its rank, or its batch
    and rank."""
    blocks: int = 0
    """Of the engine's cache."""
    most_blocks: int = 0
    """Most blocks in use at a time, before those who finish give theirs back."""
    decoded: int = 0
    """When the last iteration ended in which anybody decoded."""

    def beside(self, times: IterationTimes) -> "Log":
        """Return an empty log of another replica: requests may move from one to the other."""
        return Log(times, lost=self.lost, again=self.again)

    def left(self, request: int, last_token: int, *, decoded: bool) -> None:
        """Note when the last token came of a request that leaves before its end.

        `decoded`: whether it got any here since it came.
        """
        self.lost[request] = last_token
        if not decoded:
            self.arrived = [one for one in self.arrived if one[0] != request]

    def token_again(self, request: int, now: int) -> None:
        """Note the first token of a request after it had lost its place."""
        self.again[request] = now
        if request in self.lost:
            self.resumed.append(now - self.lost.pop(request))
