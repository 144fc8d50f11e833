"""One replica and requests that arrive when they do, or as many in flight as are wanted."""

from heapq import heappop, heappush
from typing import Protocol

from moesim.sim.serving.requests import Requests

_FOREVER = 1 << 62


class Engine(Protocol):
    """What takes requests and lets time go by: a replica, or several."""

    finished: list[int]

    @property
    def now(self) -> int:
        """Start of the next iteration."""
        ...

    def submit(self, request: int, at: int) -> None:
        """Queue a request at a time up to which all was advanced."""
        ...

    def next_change(self) -> int | None:
        """Return when something ends next if nothing is submitted before; None when idle."""
        ...

    def advance(self, until: int) -> None:
        """Carry out all iterations that begin before `until`."""
        ...


def serve(replica: Engine, asked: Requests) -> None:
    """Let all requests arrive at their times, in order, and run until the last has finished."""
    order = sorted(range(len(asked)), key=asked.arrival.__getitem__)
    for request in order:
        at = asked.arrival[request]
        replica.advance(at)
        replica.submit(request, at)
    replica.advance(_FOREVER)


def serve_closed(replica: Engine, asked: Requests, in_flight: int) -> None:
    """Keep so many requests in flight: each that finishes makes room for the next one."""
    free = [0] * min(in_flight, len(asked))
    following = 0
    while True:
        change = replica.next_change()
        if free and (change is None or free[0] <= change) and following < len(asked):
            at = heappop(free)
            replica.advance(at)
            asked.arrival[following] = at
            replica.submit(following, at)
            following += 1
        elif change is None:
            return
        else:
            replica.advance(change)
        for request in replica.finished:
            heappush(free, asked.finish[request])
        replica.finished.clear()
