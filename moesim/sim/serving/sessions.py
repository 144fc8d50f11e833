"""Conversations: the next turn comes a pause after the one before has ended."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from moesim.sim.serving.driver import Engine, drive
from moesim.sim.serving.requests import Requests


@dataclass(frozen=True, slots=True)
class Think:
    """Conversations: what comes after which request, and how long after its end."""

    after: "array[int]"
    """The request that follows each, -1 after the last of a conversation."""
    pause: "array[int]"
    """Picoseconds between the end of the request before and the arrival of each."""


def thinking(session: "array[int]", pause: "array[int]") -> Think:
    """Return the conversations of requests that stand one conversation after the other."""
    after = array("q", [-1]) * len(session)
    for request in range(len(session) - 1):
        if session[request] == session[request + 1]:
            after[request] = request + 1
    return Think(after, pause)


def serve_sessions(
    server: Engine, asked: Requests, think: Think, in_flight: int | None = None
) -> None:
    """Serve conversations: each turn after the first comes a pause after the one before ended.

    The first turns come at their arrivals, or, with `in_flight`, so many conversations go on at any
    time and each that ends makes room for the next.
    """
    finish = asked.finish
    starts = [n for n in range(len(asked)) if n == 0 or think.after[n - 1] != n]
    now = starts if in_flight is None else starts[:in_flight]
    later: Iterator[int] = iter(starts[len(now) :])

    def after(done: int) -> tuple[int, int] | None:
        following = think.after[done]
        if following >= 0:
            return finish[done] + think.pause[following], following
        opened = next(later, None)
        return None if opened is None else (finish[done], opened)

    drive(server, asked, ((max(0, asked.arrival[n]), n) for n in now), after)
