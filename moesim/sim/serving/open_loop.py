"""Requests that arrive when they do, or as many in flight as are wanted, and whoever serves."""

from moesim.sim.serving.driver import Engine, drive
from moesim.sim.serving.requests import Requests

_FOREVER = 1 << 62


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
    at_first = min(in_flight, len(asked))
    following = iter(range(at_first, len(asked)))

    def after(done: int) -> tuple[int, int] | None:
        opened = next(following, None)
        return None if opened is None else (asked.finish[done], opened)

    drive(replica, asked, [(0, request) for request in range(at_first)], after)
