"""What a replica is to a cluster, whether one engine or ranks in lockstep; free blocks now."""

from collections.abc import Sequence
from typing import Protocol

from moesim.cost.iteration import Lines, steps_until
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


def ends_prompts(server: Server, at: int) -> bool:
    """Tell whether an iteration with prompts ends by `at`, as planned."""
    return any(
        part.plan is not None and part.plan.ends <= at
        and (part.plan.lines is None if isinstance(part.plan, Joint) else bool(part.plan.chunks))
        for part in parts_of(server)
    )  # fmt: skip


def waiting(server: Server) -> int:
    """Return how many requests have no place in the batch yet."""
    if type(server) is Replica:
        return len(server.queue)
    return sum(len(rank.queue) for rank in ranks_of(server))


def free_blocks(server: Server, at: int) -> int:
    """Return the free blocks after all iterations that ended by `at`.

    An iteration in progress that something from outside has fixed already counts as ended.
    """
    if type(server) is Replica:
        return _free(server, at)
    return sum(_free(part, at) for part in parts_of(server))


def _free(part: Replica | Lockstep, at: int) -> int:
    steps = _steps_ended(part, at)
    if type(part) is Replica:
        blocks = part.blocks
        return blocks.total - blocks.used - (blocks.growth(part.step, steps) if steps else 0)
    return sum(rank.blocks.free - rank.blocks.growth(rank.step, steps) for rank in ranks_of(part))


def _steps_ended(server: Replica | Lockstep, at: int) -> int:
    """Return how many steps of the decoding under way have ended by `at`."""
    if server.now >= at:
        return 0
    found = _decoding(server)
    if found is None:
        return 0
    lines, cached, growth, most = found
    steps, took = steps_until(lines, cached + growth, growth, most=most, span_ps=at - server.now)
    return steps - (took > at - server.now)


def _decoding(server: Replica | Lockstep) -> tuple[Lines, int, int, int] | None:
    """Return the lines, cached tokens, sequences and steps of the decoding that is planned."""
    if isinstance(server, Lockstep):
        joint = server.plan
        if joint is None or joint.lines is None:
            return None
        rank = server.ranks[joint.fullest]
        return joint.lines, rank.cached, len(rank.running), joint.steps
    if server.plan is None or server.plan.chunks:
        return None
    lines = server.times.lines(len(server.running))
    return lines, server.cached, len(server.running), server.plan.steps
