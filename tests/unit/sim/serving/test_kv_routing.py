"""Routers that follow the cache: what they find of conversations, and what replicas forget."""

from functools import lru_cache
from typing import Any

import pytest

from moesim import rng
from moesim.cost.iteration import PS_PER_S
from moesim.sim.serving.changes import Changes, Drain, FailureRules, ScaleRules
from moesim.sim.serving.cluster import Loop, Pool
from moesim.sim.serving.open_loop import serve
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests, requests
from moesim.sim.serving.routers import RouterName
from moesim.sim.serving.rules import EngineRules
from moesim.sim.serving.servers import ranks_of
from moesim.spec.serving.workload import WorkloadSpec
from moesim.study.serving.workload import drawn, serve_workload
from tests.laws.serving_runs import constant, growing

SIZE = 4


def _rules(blocks: int = 1000, budget: int = 1000) -> EngineRules:
    return EngineRules(max_sequences=64, token_budget=budget, block_tokens=SIZE, blocks=blocks)


def _pool(asked: Requests, policy: RouterName, count: int = 2, blocks: int = 1000) -> Pool:
    times = constant(1.0)
    return Pool(lambda: Replica(_rules(blocks), times, asked), policy, rng.stream(0, "r"), count)


def _texts(names: list[list[int]], outputs: list[int], arrivals: list[float]) -> Requests:
    """Return requests of as many full blocks as they have names, and a token more."""
    asked = requests([SIZE * len(one) + 1 for one in names], outputs, arrivals)
    asked.prefix, asked.prefix_block = names, SIZE
    return asked


@lru_cache
def _hits(policy: RouterName) -> float:
    keys: dict[str, Any] = {
        "rate": "8 /s", "requests": 600, "prompt": {"law": "uniform", "low": 50, "high": 400},
        "output": {"law": "uniform", "low": 5, "high": 60},
        "sessions": {"turns": {"law": "uniform", "low": 2, "high": 8}, "think_mean": "500 ms"},
    }  # fmt: skip
    workload = WorkloadSpec(**keys)
    asked = drawn(workload, 3)
    rules = EngineRules(max_sequences=32, token_budget=2048, block_tokens=16, blocks=3000)
    times = growing()
    pool = Pool(lambda: Replica(rules, times, asked), policy, rng.stream(0, "router"), 4)
    serve_workload(Loop(asked, pool), asked, workload, 3)
    return sum(asked.cached) / sum(asked.prompt)


@pytest.mark.parametrize("policy", ["session_affinity", "prefix_affinity", "kv_aware"])
def test_following_the_cache_finds_more_of_conversations_than_turns(policy: RouterName) -> None:
    # of conversations spread over four replicas in turn, a turn in four meets the one before
    assert _hits(policy) > 1.3 * _hits("round_robin") > 0


def test_a_prompt_goes_where_its_beginning_lies_until_that_costs_more() -> None:
    # 41 tokens each, all beginning alike; replica 0 takes the first. At 10 it holds ten blocks and
    # has nothing to do, so it takes the second (cost 0 - 40); while that decodes its prompt weighs
    # 41, more than the 40 that are found: the third goes to replica 1
    same = list(range(10))
    asked = _texts([same] * 3, [1, 50, 1], [0.0, 10.0, 20.0])
    loop = Loop(asked, _pool(asked, "kv_aware"))
    serve(loop, asked)
    assert list(asked.cached) == [0, 40, 0]
    # of a second longer text 44 are found, more than 41: it waits for its first token there
    asked = _texts([[*same, 10], same, [*same, 10, 11]], [1, 50, 1], [0.0, 10.0, 20.0])
    loop = Loop(asked, _pool(asked, "kv_aware"))
    serve(loop, asked)
    assert list(asked.cached) == [0, 40, 44]


def test_prompts_that_are_not_computed_yet_count_twice() -> None:
    asked = _texts([list(range(10)), [50], [60]], [1, 1, 1], [0.0, 0.5, 0.6])
    pool = _pool(asked, "kv_aware")
    loop = Loop(asked, pool)
    index = pool.index_of
    assert index is not None
    seen = []
    loop.after_event = lambda: seen.append(list(index.load))
    serve(loop, asked)
    # 41 + 41 and 5 + 5 wait for first tokens, then the third goes to replica 1 as well
    assert seen[:3] == [[82, 0], [82, 10], [82, 20]]
    assert seen[-1] == [0, 0] and not index.under_way


def test_answers_are_not_looked_up_before_they_come() -> None:
    """L6: names of blocks beyond the prompt tell how long the answer is; a router reads none."""
    asked = _texts([[1, 2, 3, 4]], [8], [0.0])
    asked.prompt[0] = 2 * SIZE
    pool = _pool(asked, "kv_aware")
    assert pool.index_of is not None
    pool.index_of.where.update(dict.fromkeys([1, 2, 3, 4], 1))
    assert pool.index_of.look(0, 0) == {0: SIZE}  # one token is computed in any case


def _forgets(asked: Requests, pool: Pool, changes: Changes) -> None:
    index = pool.index_of
    loop = changes.loop

    def check() -> None:
        held: dict[int, int] = {}
        for member in pool.members:
            for rank in ranks_of(member.server):
                if rank.prefix is not None:
                    for one in (*rank.prefix.holders, *rank.prefix.gone):
                        held[one] = held.get(one, 0) | rank.prefix.bit
        assert index is None or held == index.where

    loop.after_event = check
    serve(loop, asked)


@pytest.mark.parametrize("policy", ["kv_aware", "prefix_affinity"])
def test_a_failure_empties_the_cache(policy: RouterName) -> None:
    asked = _texts([list(range(10))] * 3, [1] * 3, [0.0, 2.0, 20.0])
    pool = _pool(asked, policy, count=1)
    loop = Loop(asked, pool)
    rules = FailureRules(mean_ps=PS_PER_S, restart_ps=PS_PER_S)
    changes = Changes(loop, pool, failures=rules)
    changes.gaps = iter([10.5, 1e6])
    changes.start()
    _forgets(asked, pool, changes)
    assert list(asked.cached) == [0, 40, 0]


def test_a_drain_that_leaves_a_replica_empty_empties_its_cache() -> None:
    for outputs, cached in (([1, 1, 1], [0, 40, 0]), ([1, 30, 1], [0, 40, 40])):
        # a request that decodes until 32 keeps it at work throughout: nothing was restarted
        asked = _texts([list(range(10))] * 3, outputs, [0.0, 2.0, 20.0])
        pool = _pool(asked, "kv_aware", count=1)
        loop = Loop(asked, pool)
        changes = Changes(loop, pool)
        changes.start((Drain(replica=0, at_ps=5 * PS_PER_S, duration_ps=10 * PS_PER_S),))
        _forgets(asked, pool, changes)
        assert list(asked.cached) == cached


def test_a_replica_that_was_given_back_starts_with_an_empty_cache() -> None:
    # three at once ask for a second replica, which goes again; later ones find nothing there
    names = [[100 * n + k for k in range(10)] for n in range(3)]
    asked = _texts(names + names[1:2] * 3, [3] * 6, [0.0] * 3 + [30.0] * 3)
    pool = _pool(asked, "round_robin", count=2)
    loop = Loop(asked, pool)
    changes = Changes(loop, pool)
    changes.start((), ScaleRules(minimum=1, maximum=2, target=1.0, interval_ps=PS_PER_S,
                                 start_up_ps=PS_PER_S // 2))  # fmt: skip
    servers = [member.server for member in pool.members]
    _forgets(asked, pool, changes)
    assert pool.members[0].server is servers[0]
    assert pool.members[1].server is not servers[1]


def test_forgotten_blocks_are_struck_out() -> None:
    names = [[100 * n + k for k in range(10)] for n in range(12)]
    asked = _texts(names * 2, [9] * 24, [15.0 * n for n in range(24)])
    pool = _pool(asked, "kv_aware", blocks=40)
    _forgets(asked, pool, Changes(Loop(asked, pool), pool))
    index = pool.index_of
    assert index is not None
    assert len(index.where) <= 80  # of 120 names, two caches of 40 blocks
