"""Many replicas under a router, in one event loop over arrivals and the changes of each replica.

Each replica has one entry in the heap: when something ends there next. Whatever reaches it before
makes the entry stale, and stale entries are dropped when their time comes. Of what happens at the
same time, changes of replicas come first, then transfers, failures and the like, then arrivals.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Literal

from numpy.random import Generator

from moesim.errors import SimulationError
from moesim.sim.serving.kv_index import KvIndex, new_index
from moesim.sim.serving.lockstep import Lockstep
from moesim.sim.serving.open_loop import in_order, serve_some
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests
from moesim.sim.serving.routers import ROUTERS, Asking, Router, RouterName, Standing, ring
from moesim.sim.serving.servers import Server, ends_prompts, mark, parts_of, ranks_of

Handler = Callable[[int, int], None]
"""What happens at a time; the second argument tells a stale event from one that holds."""

CHANGE, TRANSFER, CONTROL = range(3)
"""The order of what happens at the same time."""

_FAR = 1 << 62
"""No time comes after this."""


@dataclass(slots=True, eq=False)
class Member:
    """A replica of a pool, or the place of one that is not there now."""

    number: int
    server: Server
    state: Literal["up", "draining", "starting", "down", "off"] = "up"
    version: int = 0
    """Counts its plans."""
    life: int = 0
    """Counts how often it came up or went, so that what was due before is known to be stale."""
    leaving: bool = False
    """Whether it gives its devices back once it has nothing left to do."""
    since: int = 0
    """When it took its devices last."""
    waiting: "deque[int]" = field(default_factory=deque)
    """Requests whose cache is elsewhere, and for which it has no room yet."""
    pool: "Pool | None" = None
    """The pool that it belongs to."""


@dataclass(slots=True, eq=False)
class Pool:
    """Replicas that are alike, and their router."""

    build: Callable[[], Server]
    policy: RouterName
    draw: Generator
    count: int
    """Replicas at the start."""
    index: int = 0
    members: list[Member] = field(init=False)
    outstanding: list[int] = field(init=False)
    """Requests that each replica has not finished."""
    ready: list[int] = field(init=False)
    """Replicas that take requests."""
    routed: int = 0
    stranded: "deque[tuple[int, int]]" = field(default_factory=deque)
    """Requests that came while nobody took any, with the tokens that they had put out."""
    busy_ps: int = 0
    """Time for which replicas that are gone had their devices, all together."""
    index_of: KvIndex | None = None
    """What the router knows of caches and loads; None where it does not look at them."""
    seen: Standing = field(init=False)
    draws: Iterator[list[float]] = field(init=False)
    router: Router = field(init=False)
    by_key: bool = field(init=False)
    """Whether the router looks at conversations or beginnings of prompts."""
    events: list[tuple[int, int, str, int]] = field(default_factory=list)
    """What came and went: when, which replica, what happened, and how many take requests then."""
    by_chance: bool = field(init=False)
    """Whether the router looks at what is drawn for a request."""

    def __post_init__(self) -> None:
        self.members = [
            Member(number, self.built(number), pool=self) for number in range(self.count)
        ]
        self.outstanding = [0] * self.count
        self.draws = _pairs(self.draw)
        self.router = ROUTERS[self.policy]
        self.by_key = self.policy in ("session_affinity", "prefix_affinity")
        if self.policy == "kv_aware":
            ranks = [ranks_of(member.server) for member in self.members]
            self.index_of = new_index(ranks[0][0].asked, self.count)
            for number, each in enumerate(ranks):
                self.index_of.watch(number, each)
        self.by_chance = self.policy in ("random", "power_of_two")
        self.renew()

    def built(self, number: int) -> Server:
        """Return a replica for a place, empty."""
        server = self.build()
        mark(server, self.index, number)
        return server

    def note(self, at: int, number: int, what: str) -> None:
        """Note what happened to a replica, after `renew`."""
        self.events.append((at, number, what, len(self.ready)))

    def renew(self) -> None:
        """Note which replicas take requests, after one came or went."""
        members = self.members
        self.ready = [one.number for one in members if one.state == "up"]
        self.seen = Standing(
            self.ready, self.outstanding, ring(self.ready) if self.by_key else ((), ())
        )
        if self.index_of is not None:
            self.index_of.open(self.ready)
            self.seen.load = self.index_of.load

    def replace(self, member: Member) -> None:
        """Put a new replica in a member's place: nothing in its cache, nothing to do."""
        member.server = self.built(member.number)
        member.version += 1
        self.outstanding[member.number] = 0
        if self.index_of is not None:
            self.index_of.watch(member.number, ranks_of(member.server))

    def took(self, member: Member, request: int) -> None:
        """Count a request that a replica has taken."""
        self.outstanding[member.number] += 1
        if self.index_of is not None:
            self.index_of.took(member.number, request)

    def left(self, member: Member, gone: Sequence[int]) -> None:
        """Count requests that have left a replica."""
        self.outstanding[member.number] -= len(gone)
        if self.index_of is not None:
            for request in gone:
                self.index_of.done(request)

    def time_ps(self, at: int) -> int:
        """Return for how long replicas have had their devices by `at`, all together."""
        here = sum(at - one.since for one in self.members if one.state != "off")
        return self.busy_ps + here

    def chosen(self, at: int, request: int, asked: Requests) -> Member:
        """Return the replica that a request goes to; somebody must be ready."""
        session, prefix = keys(request, asked) if self.by_key else (request, request)
        draws = next(self.draws) if self.by_chance else ()
        asking = Asking(self.routed, draws, session, prefix)
        if self.index_of is not None:
            asking.found = self.index_of.look(request, at)
        self.routed += 1
        return self.members[self.router(self.seen, asking)]


BLIND: tuple[RouterName, ...] = ("round_robin", "random", "session_affinity", "prefix_affinity")
"""Policies that look at no replica."""


def serve_blind(pool: Pool, asked: Requests) -> None:
    """Serve requests that come by themselves under a policy that looks at no replica.

    Each replica goes on by itself then, one after the other, which is quicker than all at once and
    gives the same times.
    """
    each: list[array[int]] = [array("q") for _ in pool.members]
    for request in in_order(asked):
        each[pool.chosen(asked.arrival[request], request, asked).number].append(request)
    for member, order in zip(pool.members, each, strict=True):
        serve_some(member.server, asked, order)


def keys(request: int, asked: Requests) -> tuple[int, int]:
    """Return the session of a request and the first block of its prompt; itself without.

    A prompt that does not fill a block shows none: what fills it is the answer, which nobody knows.
    """
    own = request if asked.session is None else int(asked.session[request])
    if asked.prefix is None or asked.prompt[request] < asked.prefix_block:
        return own, own
    begins = asked.prefix[request]
    return own, int(begins[0]) if begins else own


def _pairs(draw: Generator) -> Iterator[list[float]]:
    while True:
        yield from draw.random((1024, 2)).tolist()


@dataclass(slots=True, eq=False)
class Loop:
    """The clock, what is due, and the requests that are not done."""

    asked: Requests
    front: Pool
    """The pool that requests arrive at."""
    heap: list[tuple[int, int, int, int, Handler | Member]] = field(default_factory=list)
    dirty: dict[Member, Pool] = field(default_factory=dict)
    """Replicas to plan anew."""
    left: int = 0
    """Requests that came and are not done."""
    now: int = 0
    """Time up to which all has happened."""
    finished: list[int] = field(default_factory=list)
    """Requests that finished, for whoever empties it."""
    done_so_far: int = 0
    rejected: list[int] = field(default_factory=list)
    """Requests that never fit."""
    recomputed: int = 0
    """Requests that lost their cache with a replica, as often as they did."""
    on_finish: Callable[[int, int, Pool, Member, int], bool] | None = None
    """Asked where a request ends at a replica, and on which rank: whether it is done with all."""
    on_change: list[Callable[[Pool, Member, int], None]] = field(default_factory=list)
    """Called after something has ended at a replica that is not simply up, or for which some
    requests wait."""
    on_lost: Callable[[int, int, int], None] | None = None
    """Called with a request whose replica failed, the tokens that it had put out, and the time."""
    may_enter: Callable[[int], bool] | None = None
    """Whether a request fits everywhere that it has to pass."""
    after_event: Callable[[], None] | None = None
    """Called after everything that happens, for checks."""
    ticks: int = 0
    """Events so far that carry no order of their own."""

    def submit(self, request: int, at: int) -> bool:
        """Let a request arrive at a time up to which all has happened; False: it never fits."""
        self.left += 1
        enters = self.may_enter is None or self.may_enter(request)
        if not (enters and self.send(self.front, request, at)):
            self.left -= 1
            self.rejected.append(request)
            enters = False
        if self.after_event is not None:
            self.after_event()
        return enters

    def next_change(self) -> int | None:
        """Return when something happens next if nothing arrives before; None with nothing to do.

        Raises SimulationError where requests wait for ever.
        """
        if not self.left:
            return None
        if self.dirty:
            self._plan()
        if not self.heap:
            raise self._stuck()
        return self.heap[0][0]

    def advance(self, until: int) -> None:
        """Let everything happen up to `until`, or, where that is far, until nobody is left.

        Raises SimulationError where requests wait for ever.
        """
        heap, dirty = self.heap, self.dirty
        while self.left or until < _FAR:
            due = heap[0][0] if heap else _FAR
            if dirty and due > self.now and until > self.now:
                self._plan()
                continue
            if due > until or not heap:
                break
            at, _, _, version, what = heappop(heap)
            if isinstance(what, Member):
                if version != what.version:
                    continue
                self.now = at
                self._changed(at, what)
            else:
                self.now = at
                what(at, version)
            if self.after_event is not None:
                self.after_event()
        if until < _FAR:
            self.now = max(self.now, until)
        elif self.left:
            raise self._stuck()

    def push(self, at: int, kind: int, handler: Handler, *, version: int = 0) -> None:
        """Let `handler` be called at a time; of the same kind and time, first come, first."""
        self.ticks += 1
        heappush(self.heap, (at, kind, self.ticks, version, handler))

    def send(self, pool: Pool, request: int, at: int, put_out: int = 0) -> bool:
        """Route a request to a replica of a pool, or keep it until one is ready.

        False: it never fits.
        """
        if not pool.ready:
            fits = ranks_of(pool.members[0].server)[0].fits(request)
            if fits:
                pool.stranded.append((request, put_out))
            return fits
        member = pool.chosen(at, request, self.asked)
        member.server.touch(at)
        if not member.server.submit(request, at, put_out):
            return False
        pool.took(member, request)
        self.dirty[member] = pool
        return True

    def done(self, request: int, at: int) -> None:
        """Count a request that has put out its last token."""
        self.asked.finish[request] = at
        self.finished.append(request)
        self.done_so_far += 1
        self.left -= 1

    def collect(self, pool: Pool, member: Member, at: int) -> bool:
        """Take what has finished at a replica by now; whether anything has."""
        server = member.server
        if type(server) is Replica:
            return self._collect_one(pool, member, server, at)
        before = pool.outstanding[member.number]
        first = 0
        for part in parts_of(server):
            ranks = 1 if isinstance(part, Replica) else len(part.ranks)
            if part.finished and part.now <= at:
                finished, where = list(part.finished), [first] * len(part.finished)
                part.finished.clear()
                if isinstance(part, Lockstep):
                    where = [first + rank for rank in part.finished_on]
                    part.finished_on.clear()
                pool.left(member, finished)
                for request, rank in zip(finished, where, strict=True):
                    if self.on_finish is None or self.on_finish(request, at, pool, member, rank):
                        self.done(request, at)
            first += ranks
        return pool.outstanding[member.number] < before

    def _collect_one(self, pool: Pool, member: Member, server: Replica, at: int) -> bool:
        """Take what has finished at a single engine; most replicas are one."""
        finished = server.finished
        if not finished or server.now > at:
            return False
        server.finished = []
        pool.left(member, finished)
        ended = self.on_finish
        for request in finished:
            if ended is None or ended(request, at, pool, member, 0):
                self.done(request, at)
        return True

    def _plan(self) -> None:
        for member, pool in self.dirty.items():
            member.version += 1
            server = member.server
            if type(server) is Replica:  # most are, and this is where time goes
                at = server.now if server.finished else server.next_change()
            else:
                at = _next_change(server)
            if at is not None:
                tie = pool.index << 32 | member.number
                heappush(self.heap, (at, CHANGE, tie, member.version, member))
        self.dirty.clear()

    def _changed(self, at: int, member: Member) -> None:
        """Let what was planned at a replica end, and take what has finished."""
        server, pool = member.server, member.pool
        assert pool is not None
        self.dirty[member] = pool
        if type(server) is Replica and not member.waiting and member.state == "up":
            plan = server.plan
            if plan is not None and plan.ends <= at:
                server.plan = None
                server.carry_out(plan, plan.steps, plan.ends)
            if server.finished:
                self.collect(pool, member, at)
            return
        prompts = ends_prompts(server, at)
        for part in parts_of(server):
            if part.plan is not None and part.plan.ends <= at:
                part.advance(at)
        watched = bool(member.waiting) or member.state != "up"
        some = self.collect(pool, member, at)
        if watched and (some or prompts):  # steps of decoding alone make no room
            for call in self.on_change:
                call(pool, member, at)

    def _stuck(self) -> SimulationError:
        here = [*_waiting(self.front)]
        return SimulationError(
            f"request {min(here, default=-1)} waits for ever, one of {self.left}: no replica can "
            "take it"
        )


def _next_change(server: Server) -> int | None:
    """Return when something ends next in any part of a replica, or has ended and is not taken."""
    soonest = None
    for part in parts_of(server):
        at = part.now if part.finished else part.next_change()
        if at is not None and (soonest is None or at < soonest):
            soonest = at
    return soonest


def _waiting(pool: Pool) -> list[int]:
    """Return the requests that wait in a pool."""
    kept = [request for request, _ in pool.stranded]
    engines = [rank for one in pool.members for rank in ranks_of(one.server)]
    return kept + [request for rank in engines for request in (*rank.computed, *rank.queue)]
