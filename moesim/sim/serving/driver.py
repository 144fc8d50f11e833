"""Serves requests that come by themselves or because others finished: closed loops, conversations.

Whoever serves is anything with `submit`, `next_change`, `advance` and `finished`: a replica, ranks
in lockstep, a cluster.
"""

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import Protocol

from moesim.sim.serving.requests import Requests

Next = Callable[[int], tuple[int, int] | None]
"""From a request that finished to when which other request comes because of that."""


class Engine(Protocol):
    """Whoever serves requests."""

    finished: list[int]
    """Requests that finished, for whoever empties it."""

    def submit(self, request: int, at: int) -> None:
        """Queue a request at a time up to which the server was advanced."""
        ...

    def next_change(self) -> int | None:
        """Return when something ends next if nothing is submitted before; None when idle."""
        ...

    def advance(self, until: int) -> None:
        """Carry out all iterations that begin before `until`."""
        ...


def drive(server: Engine, asked: Requests, first: Iterable[tuple[int, int]], after: Next) -> None:
    """Serve what comes by itself, as (time, request), and what comes after each that finishes.

    Requests of the same time come in the order of their numbers. Nothing can come before the time
    up to which the server was advanced: that is never beyond its next change.
    """
    waiting = list(first)
    heapify(waiting)
    while True:
        change = server.next_change()
        if waiting and (change is None or waiting[0][0] <= change):
            until = waiting[0][0]
        elif change is not None:
            until = change
        else:
            return
        server.advance(until)
        for done in server.finished:
            caused = after(done)
            if caused is not None:
                heappush(waiting, caused)
        server.finished.clear()
        while waiting and waiting[0][0] <= until:
            at, request = heappop(waiting)
            asked.arrival[request] = at
            server.submit(request, at)
