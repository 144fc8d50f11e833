"""Prefill and decode on replicas of their own: the cache of a request moves over shared links.

A prompt is computed on a prefill replica, whose last iteration on it gives the first token. The
cache stays there until it has arrived at a decode replica. That admits a request only when it has
a place and the blocks for it; then the transfer starts, and at its end the request decodes.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from moesim.sim.serving.cluster import TRANSFER, Handler, Loop, Member, Pool
from moesim.sim.serving.links import Flow, Links
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests
from moesim.sim.serving.servers import parts_of, ranks_of


@dataclass(frozen=True, slots=True)
class Route:
    """The way of a transfer."""

    links: tuple[int, ...]
    latency_ps: int
    amount_per_token: float
    """What is sent per cached token."""
    rate: float
    """What the way carries per picosecond where nobody else is on it."""


@dataclass(slots=True, eq=False)
class Move:
    """A request whose first token is out, until it decodes."""

    request: int
    cached: int
    """Its tokens in the cache."""
    out: int
    """Tokens put out."""
    source: Member
    rank: int
    held: Replica
    """The engine that holds its cache, the replica's so many-th."""
    ready: int
    """When its first token came."""
    target: Member | None = None
    into: Replica | None = None
    """The engine that has kept blocks for it."""
    flow: Flow | None = None


@dataclass(slots=True, eq=False)
class Handover:
    """What joins a prefill pool and a decode pool."""

    loop: Loop
    prefill: Pool
    decode: Pool
    links: Links
    way: Callable[[int, int, int, int], Route]
    """From a prefill replica and its rank to a decode replica and its rank, by number."""
    layers: int = 1
    """Of the model; where above 1, transfers overlap with the prompt's computation by layer."""
    moves: dict[int, Move] = field(default_factory=dict)
    """Requests between their first token and their second, by number."""
    stranded: list[Move] = field(default_factory=list)
    """Those that found no decode replica."""
    reserved: dict[Replica, int] = field(default_factory=dict)
    """Requests for which each engine has kept room and whose cache is on its way."""
    put_out: dict[int, int] = field(default_factory=dict)
    """Tokens that requests had put out whose cache was lost."""
    flows: dict[Flow, Move] = field(default_factory=dict)
    """What each transfer under way carries."""
    moved: int = 0
    """Transfers done."""
    moving_ps: int = 0
    """What they took, from the first token to the cache's arrival, all together."""
    on_landed: Callable[[int, int], None] | None = None
    """Told of each request whose cache has arrived, and when."""

    def join(self) -> None:
        """Let the loop tell what ends where."""
        self.loop.on_finish = self.ended
        self.loop.on_change.append(self.changed)
        self.loop.on_lost = self.lost

    def changed(self, pool: Pool, member: Member, at: int) -> None:
        """Look for room after something has ended at a decode replica."""
        if pool is self.decode:
            self.admit(member, at)

    def lost(self, request: int, out: int, at: int) -> None:
        """Compute a request again whose cache was lost after it had put out `out` tokens."""
        if out:
            self.put_out[request] = out
            seen = ranks_of(self.prefill.members[0].server)[0].asked
            seen.allowed[request] = out + 1
        self.loop.send(self.prefill, request, at, out)

    def release(self, at: int) -> None:
        """Choose decode replicas for those that found none."""
        kept, self.stranded = self.stranded, []
        for move in kept:
            self.assign(move, at)

    def fallen(self, pool: Pool, member: Member, at: int) -> None:
        """Give up what is on its way from or to a replica that has failed."""
        for move in list(self.moves.values()):
            if member not in (move.source, move.target):
                continue
            del self.moves[move.request]
            if move.flow is not None:
                del self.flows[move.flow]
                self._due(self.links.stop(move.flow, at))
            self._forget_target(move, pool, at)
            if pool is self.decode:
                self.let_go(move, at)
            self.loop.recomputed += 1
            if move.held.log is not None:
                move.held.log.lost[move.request] = move.ready
            self.lost(move.request, move.out, at)
        self.stranded = [move for move in self.stranded if move.request in self.moves]

    def _forget_target(self, move: Move, pool: Pool, at: int) -> None:
        """Give back what a decode replica that goes on keeps for a request."""
        target, into = move.target, move.into
        if target is None or pool is self.decode:
            return
        self.decode.left(target, (move.request,))
        if into is None:
            target.waiting.remove(move.request)
            return
        target.server.touch(at)
        into.give(self._blocks(into, move))
        into.plan = None
        self.reserved[into] -= 1
        self.loop.dirty[target] = self.decode
        self.admit(target, at)

    def ended(self, request: int, at: int, pool: Pool, member: Member, rank: int) -> bool:
        """Take a request that ended at a replica; True: it is done with all."""
        if pool is self.decode:
            return True
        out = self.put_out.pop(request, 0) + 1
        if out >= self.loop.asked.output[request]:
            return True
        held = ranks_of(member.server)[rank]
        cached = self.loop.asked.prompt[request] + out - 1
        held.hold_again(request, cached)
        move = Move(request, cached, out, member, rank, held, at)
        self.moves[request] = move
        self.assign(move, at)
        return False

    def assign(self, move: Move, at: int) -> None:
        """Choose the decode replica of a request."""
        pool = self.decode
        if not pool.ready:
            self.stranded.append(move)
            return
        move.target = pool.chosen(at, move.request, self.loop.asked)
        pool.took(move.target, move.request)
        move.target.waiting.append(move.request)
        self.admit(move.target, at)

    def admit(self, member: Member, at: int) -> None:
        """Keep room at a decode replica for those who wait for it, in order, and send."""
        while member.waiting:
            server = member.server
            server.touch(at)
            self.loop.dirty[member] = self.decode
            if any(part.finished for part in parts_of(server)):
                return  # the iteration in progress frees something: asked again at its end
            move = self.moves[member.waiting[0]]
            into = self._with_room(member, move)
            if into is None:
                return
            member.waiting.popleft()
            into.keep(self._blocks(into, move))
            into.plan = None
            self.reserved[into] = self.reserved.get(into, 0) + 1
            move.into = into
            self._send(move, at)

    def _blocks(self, into: Replica, move: Move) -> int:
        if into.rules.reserve_output:
            return into.blocks.needed(into.most_tokens(move.request))
        return into.blocks.needed(move.cached)

    def _with_room(self, member: Member, move: Move) -> Replica | None:
        """Return the engine with a place and the most blocks beyond the next step's; None: none.

        Requests that were evicted there come first.
        """
        ranks = ranks_of(member.server)
        best, most = None, self._blocks(ranks[0], move) - 1
        places, reserved = ranks[0].rules.max_sequences, self.reserved
        for rank in ranks:
            blocks = rank.blocks
            if rank.queue or blocks.total - blocks.used <= most:
                continue
            if len(rank.running) + len(rank.computed) + reserved.get(rank, 0) >= places:
                continue
            spare = blocks.total - blocks.used - rank.growth
            if spare > most:
                best, most = rank, spare
        return best

    def _way(self, move: Move) -> Route:
        assert move.target is not None and move.into is not None
        into = ranks_of(move.target.server).index(move.into)
        return self.way(move.source.number, move.rank, move.target.number, into)

    def _send(self, move: Move, at: int) -> None:
        way = self._way(move)
        amount = way.amount_per_token * move.cached
        if self.layers > 1:
            before = way.rate * (move.ready - self.loop.asked.scheduled[move.request])
            amount = max(amount / self.layers, amount - before)
        move.flow = Flow(way.links, amount)
        self._due(self.links.start(move.flow, at))
        self.flows[move.flow] = move

    def _due(self, flows: list[Flow]) -> None:
        """Note when flows end whose rate changed."""
        for flow in flows:
            self.loop.push(flow.ends(), TRANSFER, self._end_of(flow), version=flow.version)

    def _end_of(self, flow: Flow) -> Handler:
        return lambda at, version: self._sent(flow, at, version)

    def _sent(self, flow: Flow, at: int, version: int) -> None:
        if version != flow.version:
            return
        move = self.flows.pop(flow)
        move.flow = None
        self._due(self.links.stop(flow, at))
        landing = at + self._way(move).latency_ps
        self.loop.push(landing, TRANSFER, lambda at, _: self._landed(move, at))

    def _landed(self, move: Move, at: int) -> None:
        if self.moves.get(move.request) is not move:
            return  # lost with a replica meanwhile
        assert move.target is not None and move.into is not None
        del self.moves[move.request]
        move.target.server.touch(at)
        move.into.join(move.request, move.cached, move.out)
        if move.into.log is not None:
            move.into.log.arrived.append((move.request, at, move.ready))
        self.reserved[move.into] -= 1
        self.loop.dirty[move.target] = self.decode
        self.let_go(move, at)
        self.admit(move.target, at)
        self.moved += 1
        self.moving_ps += at - move.ready
        if self.on_landed is not None:
            self.on_landed(move.request, at)

    def let_go(self, move: Move, at: int) -> None:
        """Free the blocks that a request holds where its prompt was computed."""
        if move.held in ranks_of(move.source.server):
            if move.held.queue or move.held.computed:
                move.source.server.touch(at)
                self.loop.dirty[move.source] = self.prefill
            move.held.let_go(move.request, move.cached)


def prompts_only(asked: Requests) -> Requests:
    """Return the requests as prefill replicas see them: one token each, then they are gone.

    Columns are shared but for lengths of outputs and the finish.
    """
    ones = array("q", [1]) * len(asked)
    seen = Requests(asked.prompt, ones, asked.arrival, array("q", ones))
    for column in fields(asked):
        if column.name not in ("output", "allowed", "finish"):
            setattr(seen, column.name, getattr(asked, column.name))
    return seen
