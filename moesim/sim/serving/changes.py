"""Replicas that come and go: failures, drains, autoscaling.

A failure strikes at the end of the iteration in progress; what was put out stays put out, and the
cache is computed again elsewhere, that of the tokens put out included, as after a preemption. What
comes back, after a failure, a drain that left it empty, or a new start, has no prefixes in its
cache.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from numpy.random import Generator

from moesim.sim.serving.cluster import CONTROL, Loop, Member, Pool
from moesim.sim.serving.servers import parts_of, ranks_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRules:
    """When replicas fail, and how long they are away."""

    mean_ps: float
    """Mean time between failures of one replica, exponential; the clock stands while it is away."""
    restart_ps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A replica that takes no requests for a time, and finishes those that it has."""

    replica: int
    at_ps: int
    duration_ps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRules:
    """How many replicas there are: requests not finished over `target`, rounded up, in bounds.

    Kubernetes' horizontal pod autoscaler: ceil(replicas * (requests per replica) / target).
    """

    minimum: int
    maximum: int
    target: float
    """Requests per replica."""
    interval_ps: int
    start_up_ps: int


@dataclass(slots=True)
class Changes:
    """What comes and goes in one pool."""

    loop: Loop
    pool: Pool
    released: Callable[[int], None] | None = None
    """Called when replicas take requests again, for those that wait for it elsewhere."""
    fallen: Callable[[Pool, Member, int], None] | None = None
    """Called when a replica has failed, for what is on its way to or from it."""
    failures: FailureRules | None = None
    draw: Generator | None = None
    gaps: Iterator[float] = field(init=False)
    failed: int = 0
    """Failures so far."""
    some: bool = False
    """Whether anything is to come."""

    def start(self, drains: tuple[Drain, ...] = (), scaling: ScaleRules | None = None) -> None:
        """Note what is to come."""
        self.some = bool(drains or scaling or self.failures)
        if self.draw is not None:
            self.gaps = _exponential(self.draw)
        if scaling is not None:
            for member in self.pool.members[scaling.minimum :]:
                member.state = "off"
            self.pool.renew()
            for member in self.pool.members[scaling.minimum :]:
                self.pool.note(0, member.number, "off")
            self.loop.push(scaling.interval_ps, CONTROL, lambda at, _: self._scale(scaling, at))
        for drain in drains:
            member = self.pool.members[drain.replica]
            self._plan_drain(drain, member)
        for member in self.pool.members:
            if member.state == "up":
                self._plan_failure(member, 0)
        self.loop.on_change.append(self._drained)

    def _plan_drain(self, drain: Drain, member: Member) -> None:
        def close(at: int, _: int) -> None:
            if member.state == "up":
                member.state = "draining"
                self.pool.renew()
                self.pool.note(at, member.number, "drains")
                life = member.life
                self.loop.push(at + drain.duration_ps, CONTROL, reopen, version=life)

        def reopen(at: int, life: int) -> None:
            if member.life == life and member.state == "draining":
                self._anew(member)
                self._ready(member, at)

        self.loop.push(drain.at_ps, CONTROL, close)

    def _plan_failure(self, member: Member, at: int) -> None:
        if self.failures is not None:
            due = at + round(next(self.gaps) * self.failures.mean_ps)
            self.loop.push(
                due, CONTROL, lambda at, life: self._fail(member, at, life), version=member.life
            )

    def _fail(self, member: Member, at: int, life: int) -> None:
        if life != member.life or member.state not in ("up", "draining"):
            return
        parts = parts_of(member.server)
        for part in parts:
            part.advance(at)
        until = max(part.now for part in parts)
        if until > at:  # at the end of the iteration in progress
            self.loop.dirty[member] = self.pool
            self.loop.push(
                until, CONTROL, lambda at, life: self._fail(member, at, life), version=life
            )
            return
        assert self.failures is not None
        lost = lost_requests(member)
        self.failed += 1
        member.state = "down"
        member.life += 1
        member.waiting.clear()
        self.loop.dirty.pop(member, None)
        self.pool.replace(member)
        self.pool.renew()
        self.pool.note(at, member.number, "fails")
        if self.fallen is not None:
            self.fallen(self.pool, member, at)
        for request, out in lost:
            self.loop.recomputed += 1
            if self.loop.on_lost is None:
                self.loop.send(self.pool, request, at, out)
            else:
                self.loop.on_lost(request, out, at)
        self._come_up(member, at + self.failures.restart_ps)

    def _come_up(self, member: Member, at: int) -> None:
        self.loop.push(
            at, CONTROL, lambda at, life: self._up(member, at, life), version=member.life
        )

    def _up(self, member: Member, at: int, life: int) -> None:
        """Let a replica that was starting or away take requests."""
        if life == member.life:
            member.life += 1
            self._plan_failure(member, at)
            self._ready(member, at)

    def _ready(self, member: Member, at: int) -> None:
        member.state = "up"
        self.pool.renew()
        self.pool.note(at, member.number, "takes requests")
        kept = list(self.pool.stranded)
        self.pool.stranded.clear()
        for request, out in kept:
            self.loop.send(self.pool, request, at, out)
        if self.released is not None:
            self.released(at)

    def _scale(self, rules: ScaleRules, at: int) -> None:
        pool = self.pool
        asked = sum(pool.outstanding) + len(pool.stranded)
        wanted = min(rules.maximum, max(rules.minimum, int(-(-asked // rules.target))))
        here = sum(one.state in ("up", "starting") for one in pool.members)
        if wanted > here:
            self._more(wanted - here, rules, at)
        else:
            self._fewer(here - wanted, at)
        self.loop.push(at + rules.interval_ps, CONTROL, lambda at, _: self._scale(rules, at))

    def _more(self, count: int, rules: ScaleRules, at: int) -> None:
        """Take back those that drain, then start others."""
        for state in ("draining", "off"):
            for member in self.pool.members:
                if not count:
                    return
                if member.state == state and (state == "off" or member.leaving):
                    count -= 1
                    self._begin(member, rules, at)

    def _begin(self, member: Member, rules: ScaleRules, at: int) -> None:
        if member.state == "draining":
            member.leaving = False
            self._ready(member, at)
            return
        member.state, member.since = "starting", at
        self.pool.note(at, member.number, "starts")
        member.life += 1
        self._come_up(member, at + rules.start_up_ps)

    def _fewer(self, count: int, at: int) -> None:
        """Let the last replicas finish what they have and go; those that only start, at once."""
        going = []
        for state in ("starting", "up"):
            for member in reversed(self.pool.members):
                if count and member.state == state:
                    count -= 1
                    member.state = "draining"
                    member.leaving = True
                    going.append(member)
        self.pool.renew()
        for member in going:
            self.pool.note(at, member.number, "drains")
            self._drained(self.pool, member, at)

    def _drained(self, pool: Pool, member: Member, at: int) -> None:
        """Give back the devices of a replica that leaves once it has nothing left to do."""
        empty = pool is self.pool and not pool.outstanding[member.number]
        if empty and member.state == "draining" and member.leaving:
            member.state, member.leaving = "off", False
            member.life += 1
            pool.busy_ps += at - member.since
            pool.note(at, member.number, "off")
            self._anew(member)

    def _anew(self, member: Member) -> None:
        """Let a replica that has nothing left come back with an empty cache.

        One that never got so far went on all the time.
        """
        held = any(rank.blocks.used for rank in ranks_of(member.server))
        if not (held or self.pool.outstanding[member.number]):
            self.loop.dirty.pop(member, None)
            self.pool.replace(member)


def lost_requests(member: Member) -> list[tuple[int, int]]:
    """Return the requests of a replica that fails, with the tokens that they have put out."""
    lost = []
    for rank in ranks_of(member.server):
        for one in rank.running.values():
            rank.note_left(one)
        output = rank.asked.output
        lost += [(one.request, output[one.request] - (one.end - rank.step))
                 for one in rank.running.values()]  # fmt: skip
        waiting = (*rank.computed, *rank.queue)
        lost += [(request, rank.put_out.get(request, 0)) for request in waiting]
    return lost


def _exponential(draw: Generator) -> Iterator[float]:
    while True:
        yield from draw.exponential(1.0, 64).tolist()
