"""What a replica is to a cluster, whether one engine, ranks in lockstep or a pipeline."""

from collections.abc import Sequence
from typing import Protocol

from moesim.sim.serving.lockstep import Joint, Lockstep
from moesim.sim.serving.pipelined import Pipelined
from moesim.sim.serving.replica import Replica


class Server(Protocol):
    """A replica from outside."""

    finished: list[int]

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        ...

    def submit(self, request: int, at: int, put_out: int = 0) -> bool:
        """Queue a request; False: it never fits."""
        ...

    def touch(self, at: int) -> None:
        """Advance to a time at which something from outside changes what may be planned."""
        ...

    def next_change(self) -> int | None:
        """Return when something ends next if nothing is submitted before; None when idle."""
        ...

    def advance(self, until: int) -> None:
        """Carry out all iterations that begin before `until`."""
        ...


def parts_of(server: Server) -> Sequence[Replica | Lockstep]:
    """Return what of a replica goes on by itself: its batches, or itself."""
    if isinstance(server, Pipelined):
        return server.batches
    assert isinstance(server, Replica | Lockstep)
    return (server,)


def ranks_of(server: Server) -> Sequence[Replica]:
    """Return the engines of a replica: itself, or its ranks, batch by batch."""
    if isinstance(server, Replica):
        return (server,)
    if isinstance(server, Lockstep):
        return server.ranks
    return [rank for part in parts_of(server) for rank in ranks_of(part)]


def mark(server: Server, pool: int, replica: int) -> None:
    """Note in the logs of a replica's engines whose they are."""
    for rank, one in enumerate(ranks_of(server)):
        if one.log is not None:
            one.log.place = (pool, replica, rank)


def ends_prompts(server: Server, at: int) -> bool:
    """Tell whether an iteration with prompts ends by `at`, as planned."""
    return any(
        part.plan is not None and part.plan.ends <= at
        and (part.plan.lines is None if isinstance(part.plan, Joint) else bool(part.plan.chunks))
        for part in parts_of(server)
    )  # fmt: skip
