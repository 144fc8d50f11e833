"""L2, L3, L4 and L6 on random clusters: nothing is lost, time goes on, nobody idles or peeks."""

import pytest

from moesim.sim.serving.batching import BATCHING
from moesim.sim.serving.cluster import Loop
from moesim.sim.serving.requests import NEVER, Requests
from moesim.sim.serving.servers import parts_of, ranks_of
from tests.laws.serving_runs import World, held_blocks, random_requests, random_world

SEEDS = range(200)


def _whole(seed: int) -> tuple[World, Requests, Loop]:
    world, asked = random_world(seed), random_requests(seed)
    return world, asked, world.loop(asked)


@pytest.mark.parametrize("seed", SEEDS)
def test_requests_and_blocks_are_kept(seed: int) -> None:
    """L2: injected = finished + running + queued + rejected, and used + free = total."""
    world, asked, loop = _whole(seed)
    arrived, fits = set[int](), loop.may_enter

    def entering(request: int) -> bool:
        arrived.add(request)
        return fits is None or fits(request)

    loop.may_enter = entering
    moves = world.joined.moves if world.joined else {}

    def check() -> None:
        engines, servers = world.here(), [one.server for p in world.pools for one in p.members]
        here = sum(len(one.running) + len(one.computed) + len(one.queue) for one in engines)
        pending = sum(len(part.finished) for one in servers for part in parts_of(one))
        waiting = len(loop.front.stranded) + len(moves)
        done = loop.done_so_far + len(loop.rejected)
        assert len(arrived) == done + pending + here + waiting
        towards = sum(move.target is not None for move in moves.values())
        assert sum(sum(pool.outstanding) for pool in world.pools) == here + pending + towards
        for one in engines:
            assert 0 <= one.blocks.used == held_blocks(one, world.joined) <= one.blocks.total
            if one.prefix is not None:
                assert sum(one.prefix.order.values()) == one.blocks.free

    loop.after_event = check
    world.run(loop)
    assert loop.done_so_far + len(loop.rejected) == len(asked)


@pytest.mark.parametrize("seed", SEEDS)
def test_times_are_in_order_and_nothing_is_left(seed: int) -> None:
    """L3, and L2 at the end: all blocks are free, all requests finished or rejected."""
    world, asked, loop = _whole(seed)
    seen = [0]

    def check() -> None:
        assert loop.now >= seen[-1]
        seen[0] = loop.now

    loop.after_event = check
    world.run(loop)
    rejected = set(loop.rejected)
    assert loop.done_so_far + len(rejected) == len(asked)
    for k in range(len(asked)):
        if k in rejected:
            assert asked.finish[k] == NEVER
        else:
            times = (asked.arrival[k], asked.scheduled[k], asked.first[k], asked.finish[k])
            assert list(times) == sorted(times)
    assert all(one.is_idle and not one.blocks.used for one in world.here())
    assert all(not sum(pool.outstanding) for pool in world.pools)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_engine_idles_while_it_could_serve(seed: int) -> None:
    """L4: where nothing is under way, the batching policy takes none of those that wait."""
    world, _, loop = _whole(seed)

    def check() -> None:
        if loop.dirty:
            return  # planned before time goes on
        for server in (member.server for pool in world.pools for member in pool.members):
            for part in parts_of(server):
                if part.now < loop.now and part.next_change() is None:
                    for one in ranks_of(part):
                        assert not one.running and not BATCHING[one.rules.batching](one)

    loop.after_event = check
    world.run(loop)


@pytest.mark.parametrize("seed", range(150))
def test_true_lengths_are_not_read(seed: int) -> None:
    """L6: until the first finish, other true lengths change no decision and no time."""
    seen = []
    for outputs in (1, 2):
        world, asked = random_world(seed), random_requests(seed, outputs=outputs)
        world.in_flight, world.talks = None, False  # arrivals follow finishes there
        loop = world.loop(asked)
        world.run(loop)
        seen.append((asked, loop))
    (one, first), (other, second) = seen
    until = min(time for asked in (one, other) for time in asked.finish if time != NEVER)
    assert first.rejected == second.rejected
    for name in ("scheduled", "first"):
        columns = [list(getattr(asked, name)) for asked in (one, other)]
        for ours, theirs in zip(*columns, strict=True):
            assert ours == theirs or min(_late(ours), _late(theirs)) >= until


def _late(time: int) -> int:
    return 1 << 62 if time == NEVER else time
