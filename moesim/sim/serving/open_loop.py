"""One replica and requests that arrive when they do, or as many in flight as are wanted."""

from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests

_FOREVER = 1 << 62


def serve(replica: Replica, asked: Requests) -> None:
    """Let all requests arrive at their times, in order, and run until the last has finished."""
    order = sorted(range(len(asked)), key=asked.arrival.__getitem__)
    for request in order:
        at = asked.arrival[request]
        replica.advance(at)
        replica.submit(request, at)
    replica.advance(_FOREVER)


def serve_closed(replica: Replica, asked: Requests, in_flight: int) -> None:
    """Keep so many requests in flight: each that finishes makes room for the next one."""
    following = min(in_flight, len(asked))
    for request in range(following):
        asked.arrival[request] = 0
        replica.submit(request, 0)
    while True:
        change = replica.next_change()
        if change is None:
            return
        replica.advance(change)
        for _ in replica.finished:
            if following < len(asked):
                asked.arrival[following] = replica.now
                replica.submit(following, replica.now)
                following += 1
        replica.finished.clear()
