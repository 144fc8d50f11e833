"""Small serving runs for the laws: engines with simple times, random workloads, clusters."""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from moesim import rng
from moesim.cost.iteration import PS_PER_S, TabledTimes
from moesim.sim.serving.changes import Changes, Drain, FailureRules, ScaleRules
from moesim.sim.serving.cluster import Loop, Pool
from moesim.sim.serving.disaggregation import Handover, Route, prompts_only
from moesim.sim.serving.links import Links
from moesim.sim.serving.lockstep import Lockstep, fewest_waiting
from moesim.sim.serving.open_loop import serve, serve_closed
from moesim.sim.serving.pipelined import Pipelined
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests, requests
from moesim.sim.serving.routers import RouterName
from moesim.sim.serving.rules import EngineRules
from moesim.sim.serving.servers import Server, ranks_of
from moesim.sim.serving.sessions import Think, serve_sessions, thinking


def constant(iteration_s: float) -> TabledTimes:
    """Return times of which every iteration takes as long."""
    return TabledTimes(lambda _: ((0, 1 << 20), (0.0, 0.0)), lambda *_: iteration_s, lambda *_: 0.0)


def growing() -> TabledTimes:
    """Return times that grow with tokens, sequences and cache, with a knot in the last.

    A host beside the device bounds iterations of few sequences with little in their caches.
    """
    return TabledTimes(
        lambda n: ((0, 300 * n, 1 << 20), (1e-4, 1e-4 + n * 3e-4, 1e-4 + n * 3e-4 + 2.0)),
        lambda tokens, sequences, everyone: (
            4e-3 + 2e-5 * tokens + 1e-6 * sequences + 5e-6 * everyone
        ),
        lambda tokens, past: 1e-6 * tokens + 1e-9 * tokens * past,
        lambda sequences: 4.4e-3 + 1e-5 * sequences,
    )


@dataclass
class World:
    """What a random case is made of."""

    rules: EngineRules
    policy: RouterName
    replicas: int
    ranks: int = 1
    batches: int = 1
    """Of a pipeline, of so many ranks each."""
    patience: int = 0
    apart: bool = False
    failures: FailureRules | None = None
    drains: tuple[Drain, ...] = ()
    scaling: ScaleRules | None = None
    in_flight: int | None = None
    talks: bool = False
    """Whether turns of conversations wait for the one before."""
    layers: int = 1
    """By which transfers overlap with prompts."""
    joined: Handover | None = None
    servers: list[Server] = field(default_factory=list)
    """All that were made, failed ones included."""
    pools: list[Pool] = field(default_factory=list)

    def build(self, asked: Requests, index: int, *, one_by_one: bool) -> Callable[[], Server]:
        """Return a maker of replicas of a pool, which are noted in `servers`."""
        times = growing()
        rules = replace(self.rules, prefix_caching=self.rules.prefix_caching and not index)

        def batch() -> Replica | Lockstep:
            each = [Replica(rules, times, asked, one_by_one) for _ in range(self.ranks)]
            if self.ranks == 1:
                return each[0]
            return Lockstep(each, times, fewest_waiting, self.patience)

        def made() -> Server:
            batches = [batch() for _ in range(self.batches)]
            server: Server = Pipelined(batches) if self.batches > 1 else batches[0]
            self.servers.append(server)
            return server

        return made

    def loop(self, asked: Requests, *, one_by_one: bool = False) -> Loop:
        """Return the event loop of the whole, ready to run."""
        self.servers.clear()
        self.pools.clear()
        first = prompts_only(asked) if self.apart else asked
        front = self._pool(0, first, one_by_one)
        loop = Loop(asked, front)
        joined = None
        if self.apart:
            back = self._pool(1, asked, one_by_one)
            links = Links([2e-7] * 2 * self.replicas * self.ranks * self.batches)
            joined = Handover(loop, front, back, links, self._way, self.layers)
            joined.join()
            self.joined = joined
            loop.may_enter = lambda k: (
                asked.prompt[k] + asked.allowed[k] <= self.rules.blocks * self.rules.block_tokens
            )
        for pool in (front, *((joined.decode,) if joined else ())):
            changes = Changes(loop, pool, failures=self.failures)
            if self.failures:
                changes.draw = rng.stream(1, f"failures {pool.index}")
            if joined:
                changes.fallen, changes.released = joined.fallen, joined.release
            changes.start(self.drains, self.scaling)
            self.pools.append(pool)
        return loop

    def _pool(self, index: int, asked: Requests, one_by_one: bool) -> Pool:
        build = self.build(asked, index, one_by_one=one_by_one)
        return Pool(build, self.policy, rng.stream(0, f"router {index}"), self.replicas, index)

    def _way(self, source: int, rank: int, target: int, into: int) -> Route:
        each = self.ranks * self.batches
        one, other = source * each + rank, (self.replicas + target) * each + into
        return Route((one, other), 5_000_000, 100.0, 2e-7)

    def run(self, loop: Loop) -> None:
        """Let the requests arrive, and run until the last is done."""
        if self.talks and loop.asked.session is not None:
            serve_sessions(loop, loop.asked, _pauses(loop.asked), self.in_flight)
        elif self.in_flight is None:
            serve(loop, loop.asked)
        else:
            serve_closed(loop, loop.asked, self.in_flight)

    def here(self) -> list[Replica]:
        """Return the engines that are there now."""
        servers = [member.server for pool in self.pools for member in pool.members]
        return [rank for server in servers for rank in ranks_of(server)]

    def steps(self) -> list[int]:
        """Return the decoding steps of each engine."""
        return [rank.step for server in self.servers for rank in ranks_of(server)]


def random_requests(seed: int, *, outputs: int = 0) -> Requests:
    """Return 30 requests, some of which may be too long; `outputs` draws other true lengths."""
    draw = rng.stream(seed, "requests")
    count = 30
    prompts = draw.integers(1, 200, count).tolist()
    arrivals = np.cumsum(draw.exponential(0.02, count)).tolist()
    allowed = draw.integers(1, 120, count).tolist()
    true = rng.stream(outputs, "true lengths").integers(1, 120, count)
    asked = requests(prompts, np.minimum(true, allowed).tolist(), arrivals)
    asked.allowed = type(asked.prompt)("q", allowed)
    if draw.random() < 0.6:
        _converse(asked, draw)
    return asked


TEXT = 16
"""Tokens of a block with an id."""


def _converse(asked: Requests, draw: Generator) -> None:
    """Let prompts be turns of conversations that may begin alike, with ids of answers too."""
    count, names = len(asked), list[list[int]]()
    session, turn = list[int](), list[int]()
    for talk in range(count):
        text = 10**6 * int(draw.integers(1, 4))
        common, whole = int(draw.integers(0, 9)), 0
        for one in range(int(draw.integers(1, 6))):
            request = len(session)
            if request == count:
                break
            asked.prompt[request] = whole = whole + asked.prompt[request] // 2 + 1
            blocks = (whole + asked.output[request]) // TEXT
            own = 10**7 + 1000 * talk
            names.append([text + k if k < common else own + k for k in range(blocks)])
            session.append(talk)
            turn.append(one)
    asked.prefix, asked.prefix_block = names, TEXT
    asked.session, asked.turn = array("q", session), array("q", turn)


def _pauses(asked: Requests) -> Think:
    """Return the conversations, with a pause of 0 to 80 ms before each turn."""
    assert asked.session is not None
    return thinking(asked.session, array("q", (k % 5 * 20 * 10**9 for k in range(len(asked)))))


def random_world(seed: int) -> World:
    """Return any combination of policies, limits and what comes and goes."""
    draw = rng.stream(seed, "world")
    batching = draw.choice(["mixed", "prefill_first", "whole_prompts", "static"])
    rules = EngineRules(
        batching=str(batching),  # type: ignore[arg-type]
        max_sequences=int(draw.integers(1, 12)), token_budget=int(draw.choice([64, 256, 1024])),
        block_tokens=int(draw.choice([1, 4, 16])), blocks=0,
        reserve_output=bool(draw.random() < 0.3),
    )  # fmt: skip
    blocks = int(draw.integers(300, 900)) // rules.block_tokens
    rules = replace(rules, blocks=blocks)
    policy = draw.choice(["round_robin", "random", "least_outstanding", "power_of_two",
                          "session_affinity", "prefix_affinity", "kv_aware"])  # fmt: skip
    apart = bool(draw.random() < 0.3)
    world = World(
        rules, str(policy), int(draw.integers(1, 4)),  # type: ignore[arg-type]
        ranks=int(draw.choice([1, 1, 3])), apart=apart,
    )  # fmt: skip
    if world.ranks > 1:
        world.patience = int(draw.choice([0, 0, 3]))
    if draw.random() < 0.25:
        world.batches = 2
    if draw.random() < 0.3 and world.batches == 1:
        world.failures = FailureRules(mean_ps=PS_PER_S, restart_ps=PS_PER_S // 5)
    if draw.random() < 0.2:
        world.drains = (Drain(replica=0, at_ps=PS_PER_S // 10, duration_ps=PS_PER_S // 4),)
    elif draw.random() < 0.3 and not apart:
        world.scaling = ScaleRules(
            minimum=1, maximum=world.replicas, target=3.0, interval_ps=PS_PER_S // 20,
            start_up_ps=PS_PER_S // 15,
        )  # fmt: skip
    if draw.random() < 0.2:
        world.in_flight = int(draw.integers(1, 10))
    if world.ranks == 1 and draw.random() < 0.3:  # guesses on several ranks are refused
        pace = ((7, 5), (13, 9), (2, 1), (37, 10))[int(draw.integers(4))]
        world.rules = replace(world.rules, tokens_per_step=pace, checked_tokens=4)
    world.rules = replace(world.rules, prefix_caching=bool(draw.random() < 0.8))
    world.layers = int(draw.choice([1, 8]))
    world.talks = bool(draw.random() < 0.6)
    return world


def held_blocks(rank: Replica, joined: Handover | None = None) -> int:
    """Return the blocks that an engine's requests hold, each counted by itself.

    Those that wait to leave it or are on their way to it included; shared ones once.
    """
    blocks, reserve = rank.blocks, rank.rules.reserve_output
    now = [(one.request, one.cached + rank.step - one.begun) for one in rank.running.values()]
    own = {
        request: blocks.needed(rank.most_tokens(request) if reserve else cached)
        for request, cached in [*now, *rank.computed.items()]
    }
    coming = 0
    for move in joined.moves.values() if joined else ():
        if move.held is rank:
            own[move.request] = blocks.needed(move.cached)
        if move.into is rank:
            most = rank.most_tokens(move.request) if reserve else move.cached
            coming += blocks.needed(most)
    if rank.prefix is None:
        return sum(own.values()) + coming
    held, size = rank.prefix.held, rank.prefix.size
    shared = {one for request in own for one in held[request]}
    alone = sum(count - size * len(held[request]) for request, count in own.items())
    return alone + size * len(shared) + coming


def seconds(column: Iterable[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a column of times in seconds."""
    return np.array(list(column), dtype=np.float64) / PS_PER_S
