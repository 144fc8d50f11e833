"""Prefixes kept where prompts are computed: a hit saves computation, the whole cache moves."""

from dataclasses import replace

from moesim import rng
from moesim.cost.iteration import PS_PER_S
from moesim.sim.serving.cluster import Loop, Pool
from moesim.sim.serving.disaggregation import Handover, Route, prompts_only
from moesim.sim.serving.links import Links
from moesim.sim.serving.open_loop import serve
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests, requests
from moesim.sim.serving.rules import EngineRules
from moesim.sim.serving.servers import ranks_of
from tests.laws.serving_runs import constant

RATE = 500 / PS_PER_S


def _apart(asked: Requests, blocks: int = 100) -> Handover:
    """One prefill and one decode replica; 100 per token at 500 a second, and half a second."""
    rules = EngineRules(max_sequences=8, token_budget=5, block_tokens=1, blocks=blocks)
    seen, times = prompts_only(asked), constant(1.0)
    plain = replace(rules, prefix_caching=False)
    front = Pool(lambda: Replica(rules, times, seen), "round_robin", rng.stream(0, "a"), 1)
    back = Pool(lambda: Replica(plain, times, asked), "round_robin", rng.stream(0, "b"), 1, 1)
    loop = Loop(asked, front)
    way = Route((0, 1), PS_PER_S // 2, 100.0, RATE)
    joined = Handover(loop, front, back, Links([RATE, RATE]), lambda *_: way)
    joined.join()
    serve(loop, asked)
    return joined


def test_a_hit_saves_computation_and_the_whole_cache_is_moved() -> None:
    asked = requests([10, 10], [2, 2], [0.0, 10.0])
    asked.prefix, asked.prefix_block = [list(range(10))] * 2, 1
    joined = _apart(asked)
    assert list(asked.cached) == [0, 9]  # one token is computed in any case
    # two chunks until 2, sent until 4, there at 4.5, a token more; then one chunk, and the same
    assert [time / PS_PER_S for time in asked.first] == [2.0, 11.0]
    assert [time / PS_PER_S for time in asked.finish] == [5.5, 14.5]
    assert joined.moving_ps == 2 * (5 * PS_PER_S // 2)


def test_blocks_held_for_a_transfer_stay_shared() -> None:
    # 12 blocks: nine shared ones are on their way until 4.5 and for the second from 3 to 6.5; what
    # it adds is one block, where a copy of its own would take ten
    asked = requests([10, 10], [2, 2], [0.0, 2.0])
    asked.prefix, asked.prefix_block = [list(range(9))] * 2, 1
    joined = _apart(asked, blocks=12)
    assert list(asked.cached) == [0, 9]
    assert asked.first[1] == 3 * PS_PER_S
    rank = ranks_of(joined.prefill.members[0].server)[0]
    assert rank.prefix is not None
    assert rank.blocks.used == 0
    assert rank.prefix.kept == 9
    assert sum(rank.prefix.order.values()) == 12
