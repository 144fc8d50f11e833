"""Clusters whose every time can be worked out by hand: iterations take one second."""

from array import array

import numpy as np
import pytest

from moesim import rng
from moesim.cost.iteration import PS_PER_S, TabledTimes
from moesim.errors import SimulationError
from moesim.sim.serving.changes import Changes, Drain, FailureRules, ScaleRules
from moesim.sim.serving.cluster import BLIND, Loop, Pool, serve_blind
from moesim.sim.serving.disaggregation import Handover, Route, prompts_only
from moesim.sim.serving.links import Flow, Links, max_min
from moesim.sim.serving.open_loop import serve, serve_closed
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests, requests
from moesim.sim.serving.routers import ROUTERS, Asking, RouterName, Standing, ring
from moesim.sim.serving.rules import EngineRules

SECOND = TabledTimes(lambda _: ((0, 1 << 20), (0.0, 0.0)), lambda *_: 1.0, lambda *_: 0.0)


def _rules(places: int = 8, blocks: int = 1000) -> EngineRules:
    return EngineRules(max_sequences=places, token_budget=1000, block_tokens=1, blocks=blocks)


def _pool(
    asked: Requests, rules: EngineRules, *, count: int = 1, index: int = 0,
    policy: RouterName = "round_robin",
) -> Pool:  # fmt: skip
    draw = rng.stream(0, "router")
    return Pool(lambda: Replica(rules, SECOND, asked), policy, draw, count, index)


def _finishes(asked: Requests) -> list[float]:
    return [time / PS_PER_S for time in asked.finish]


def test_max_min_gives_the_narrow_link_to_its_flows_and_the_rest_to_others() -> None:
    first, both, second = Flow((0,), 1.0), Flow((0, 1), 1.0), Flow((1,), 1.0)
    flows = {flow: flow.links for flow in (first, both, second)}
    assert max_min(flows, [10.0, 4.0]) == {first: 8.0, both: 2.0, second: 2.0}


def test_flows_on_one_link_share_it_until_one_ends() -> None:
    links, one, other = Links([10.0]), Flow((0,), 100.0), Flow((0,), 200.0)
    links.start(one, 0)
    assert one.ends() == 10
    assert links.start(other, 4) == [one, other]  # 60 of the first left, at 5 each
    assert (one.ends(), other.ends()) == (16, 44)
    links.stop(one, 16)
    assert other.ends() == 30  # 140 left at 10


def _apart(asked: Requests, decode: EngineRules, layers: int = 1) -> Handover:
    """One prefill and one decode replica: 1000 per request of ten tokens, 500 a second."""
    front = _pool(prompts_only(asked), _rules())
    loop = Loop(asked, front)
    rate = 500 / PS_PER_S
    joined = Handover(
        loop, front, _pool(asked, decode, index=1), Links([rate, rate]),
        lambda *_: Route((0, 1), PS_PER_S // 2, 100.0, rate), layers,
    )  # fmt: skip
    joined.join()
    serve(loop, loop.asked)
    return joined


def test_a_cache_moves_after_the_first_token_and_decodes_when_it_is_there() -> None:
    asked = requests([10], [4])
    joined = _apart(asked, _rules())
    # first token at 1, sent until 3, there at 3.5, three tokens more
    assert asked.first[0] == PS_PER_S and _finishes(asked) == [6.5]
    assert (joined.moved, joined.moving_ps) == (1, 5 * PS_PER_S // 2)


def test_two_caches_share_the_link() -> None:
    asked = requests([10, 10], [4, 4])
    _apart(asked, _rules())
    assert _finishes(asked) == [8.5, 8.5]  # sent from 1 to 5


def test_decode_admits_only_with_a_place_and_with_room() -> None:
    for rules in (_rules(places=1), _rules(blocks=19)):
        asked = requests([10, 10], [4, 4])
        _apart(asked, rules)
        assert _finishes(asked) == [6.5, 12.0]  # the second is sent from 6.5 to 8.5


def test_layer_wise_transfers_leave_what_the_link_could_not_carry() -> None:
    asked = requests([10], [4])
    _apart(asked, _rules(), layers=4)
    assert _finishes(asked) == [5.5]  # 500 of 1000 went in the second of the prompt
    asked = requests([10], [4])
    _apart(asked, _rules(), layers=1000)
    assert _finishes(asked) == [5.5]


def test_a_request_of_one_token_never_moves() -> None:
    asked = requests([10], [1])
    assert _apart(asked, _rules()).moved == 0
    assert _finishes(asked) == [1.0]


def test_a_drained_replica_finishes_what_it_has_and_takes_nothing() -> None:
    asked = requests([1] * 4, [3] * 4, [0.0, 1.0, 2.0, 12.0])
    loop = Loop(asked, _pool(asked, _rules(places=1), count=2, policy="least_outstanding"))
    drain = Drain(replica=0, at_ps=PS_PER_S // 2, duration_ps=10 * PS_PER_S)
    Changes(loop, loop.front).start((drain,))
    serve(loop, loop.asked)
    assert _finishes(asked) == [3.0, 4.0, 7.0, 15.0]
    assert loop.front.outstanding == [0, 0]


def test_a_failure_takes_the_cache_but_not_what_was_put_out() -> None:
    asked = requests([1], [5])
    loop = Loop(asked, _pool(asked, _rules()))
    rules = FailureRules(mean_ps=PS_PER_S, restart_ps=4 * PS_PER_S)
    changes = Changes(loop, loop.front, failures=rules)
    changes.gaps = iter([2.5, 1e6])
    changes.start()
    serve(loop, loop.asked)
    # three tokens by 3, where the failure strikes; back at 7; the fourth with the recomputation
    assert _finishes(asked) == [9.0] and asked.first[0] == PS_PER_S
    assert (changes.failed, loop.recomputed) == (1, 1)


def test_a_failed_decode_replica_sends_requests_back_to_prefill() -> None:
    asked = requests([10], [4])
    front = _pool(prompts_only(asked), _rules())
    loop = Loop(asked, front)
    rate = 500 / PS_PER_S
    back = _pool(asked, _rules(), index=1)
    joined = Handover(loop, front, back, Links([rate, rate]),
                      lambda *_: Route((0, 1), PS_PER_S // 2, 100.0, rate))  # fmt: skip
    joined.join()
    rules = FailureRules(mean_ps=PS_PER_S, restart_ps=PS_PER_S)
    changes = Changes(loop, back, joined.release, joined.fallen, rules)
    changes.gaps = iter([4.0, 1e6])
    changes.start()
    serve(loop, loop.asked)
    # second token at 4.5, where it fails; prompt and two tokens are computed until 5.5, which
    # gives the third; 12 tokens are sent until 7.9, there at 8.4, the fourth at 9.4
    assert _finishes(asked) == pytest.approx([9.4])
    assert loop.recomputed == 1 and not any(joined.reserved.values())


def test_a_cluster_grows_with_its_requests_and_shrinks_again() -> None:
    asked = requests([1] * 7, [3] * 7, [0.0] * 6 + [2.0])
    loop = Loop(asked, _pool(asked, _rules(places=1), count=3, policy="least_outstanding"))
    scaling = ScaleRules(minimum=1, maximum=3, target=2.0, interval_ps=PS_PER_S,
                         start_up_ps=PS_PER_S // 2)  # fmt: skip
    Changes(loop, loop.front).start((), scaling)
    serve(loop, loop.asked)
    assert _finishes(asked) == [3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 5.0]
    # replica 0 throughout; at 1 there are 6 requests: two more; at 6, four left: one of them goes;
    # at 12, two left: the other
    assert loop.front.time_ps(loop.now) == (18 + 11 + 5) * PS_PER_S


def test_what_never_fits_is_rejected_and_counted() -> None:
    for rules, kept in ((_rules(blocks=12), 1), (_rules(blocks=9), 0)):
        asked = requests([8, 8, 8], [4, 5, 5])
        replica = Replica(rules, SECOND, asked)
        serve_closed(replica, asked, 1)
        assert len(replica.rejected) == 3 - kept
    rules = EngineRules(max_sequences=1, token_budget=4, blocks=100, batching="whole_prompts")
    asked = requests([4, 5], [9, 9])
    replica = Replica(rules, SECOND, asked)
    serve(replica, asked)
    assert replica.rejected == [1]
    rules = EngineRules(max_sequences=1, token_budget=4, blocks=100, max_model_tokens=13)
    asked = requests([4, 5], [9, 9])
    loop = Loop(asked, _pool(asked, rules))
    serve(loop, loop.asked)
    assert loop.rejected == [1] and asked.finish[1] < 0


def test_a_request_that_waits_for_ever_is_named() -> None:
    asked = requests([1], [1])
    loop = Loop(asked, _pool(asked, _rules(), count=1))
    loop.front.members[0].state = "off"
    loop.front.renew()
    with pytest.raises(SimulationError, match="request 0 waits for ever"):
        serve(loop, loop.asked)


def _seen(outstanding: list[int], load: list[int]) -> Standing:
    ready = list(range(len(outstanding)))
    return Standing(ready, outstanding, ring(ready), load)


def test_routers_choose_as_they_say() -> None:
    seen = _seen([2, 1, 1], [50, 30, 40])

    def chosen(policy: RouterName, number: int = 0, *draws: float) -> int:
        return ROUTERS[policy](seen, Asking(number, draws, 7, 7))

    assert [chosen("round_robin", k) for k in range(4)] == [0, 1, 2, 0]
    assert [chosen("random", 0, draw) for draw in (0.0, 0.4, 0.99)] == [0, 1, 2]
    assert chosen("least_outstanding") == 1
    assert chosen("power_of_two", 0, 0.0, 0.9) == 2  # of 0 and 2
    assert chosen("power_of_two", 0, 0.9, 0.6) == 2  # of 2 and 1, which are equal
    assert chosen("kv_aware") == 1  # 30 is the least


@pytest.mark.parametrize(("found", "taken"), [
    ({}, 1), ({0: 19}, 1), ({0: 20}, 0), ({2: 9}, 1), ({2: 11, 0: 30}, 0), ({1: 5, 2: 16}, 2),
])  # fmt: skip
def test_what_a_cache_saves_is_weighed_against_the_load(found: dict[int, int], taken: int) -> None:
    asking = Asking(0, (), 7, 7, found)
    assert ROUTERS["kv_aware"](_seen([9, 9, 9], [50, 30, 40]), asking) == taken


def test_sessions_stay_where_they_are_when_a_replica_goes() -> None:
    def owners(ready: list[int]) -> list[int]:
        seen = Standing(ready, [0] * 8, ring(ready))
        return [ROUTERS["session_affinity"](seen, Asking(0, (0.0, 0.0), k, k))
                for k in range(2000)]  # fmt: skip

    before, after = owners(list(range(8))), owners([0, 1, 2, 4, 5, 6, 7])
    assert all(was == now for was, now in zip(before, after, strict=True) if was != 3)
    shares = np.bincount(before, minlength=8) / 2000
    assert shares.min() > 0.06 and shares.max() < 0.22  # 1/8 each, by 64 points


@pytest.mark.parametrize("policy", BLIND)
def test_blind_routing_gives_the_same_times_replica_by_replica(policy: RouterName) -> None:
    seen = []
    for blind in (True, False):
        draw = rng.stream(0, "workload")
        prompts, outputs = draw.integers(1, 9, (2, 80)).tolist()
        asked = requests(prompts, outputs, np.cumsum(draw.exponential(0.7, 80)).tolist())
        pool = _pool(asked, _rules(places=2, blocks=16), count=3, policy=policy)
        if blind:
            serve_blind(pool, asked)
        else:
            serve(Loop(asked, pool), asked)
        seen.append((asked.scheduled, asked.first, asked.finish, asked.preemptions))
    assert seen[0] == seen[1]


def test_routers_see_an_iteration_in_progress_as_not_finished() -> None:
    # the first request of replica 0 ends at 2; at 1.5 it still counts, so replica 1 is taken
    asked = requests([1] * 3, [2, 9, 1], [0.0, 0.2, 1.5])
    loop = Loop(asked, _pool(asked, _rules(), count=2, policy="least_outstanding"))
    serve(loop, loop.asked)
    assert asked.finish[2] == 3 * PS_PER_S  # equal loads: the first replica, from 2 to 3
    asked = requests([1] * 3, [2, 1, 1], [0.0, 0.2, 1.5])
    loop = Loop(asked, _pool(asked, _rules(), count=2, policy="least_outstanding"))
    serve(loop, loop.asked)
    assert asked.finish[2] == 5 * PS_PER_S // 2  # replica 1 was idle since 1.2


def test_prefill_sees_one_token_of_each_request() -> None:
    asked = requests([3, 4], [5, 6])
    seen = prompts_only(asked)
    assert seen.output == array("q", [1, 1]) and seen.allowed == array("q", [1, 1])
    assert seen.first is asked.first and seen.finish is not asked.finish
