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
    """Keep so many requests in flight: each that finishes or is rejected makes room for the next.

    Raises ValueError where nobody could ever finish: `in_flight` below 1.
    """
    if in_flight < 1:
        raise ValueError("in_flight must be 1 or more")
    following, room = 0, in_flight
    while True:
        while room and following < len(asked):
            asked.arrival[following] = replica.now
            room -= replica.submit(following, replica.now)
            following += 1
        change = replica.next_change()
        if change is None:
            return
        replica.advance(change)
        room += len(replica.finished)
        replica.finished.clear()
