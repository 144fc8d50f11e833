"""Conversations and closed loops on a server whose times are known by hand."""

from array import array

from moesim.cost.iteration import TabledTimes
from moesim.sim.serving.driver import drive
from moesim.sim.serving.open_loop import serve, serve_closed
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import NEVER, Requests, requests
from moesim.sim.serving.rules import EngineRules
from moesim.sim.serving.sessions import serve_sessions, thinking

MS = 10**9


def replica(asked: Requests, places: int = 8) -> Replica:
    """Return an engine whose iterations all take 1 ms, with room for everything."""
    times = TabledTimes(lambda _: ((0, 1), (0.0, 0.0)), lambda _, __, ___: 1e-3, lambda _, __: 0.0)
    rules = EngineRules(max_sequences=places, token_budget=1000, blocks=10**6)
    return Replica(rules, times, asked)


def test_the_next_turn_comes_a_pause_after_the_last_answer() -> None:
    asked = requests([100, 110, 50], [3, 1, 2], [0.002, 0.0, 0.004])
    asked.arrival[1] = NEVER
    think = thinking(array("q", [0, 0, 1]), array("q", [0, 5 * MS, 0]))
    assert list(think.after) == [1, -1, -1]
    serve_sessions(replica(asked), asked, think)
    # turn 0: comes at 2, first token at 3, last at 5; turn 1: 5 ms later, its only token at 11
    assert list(asked.arrival) == [2 * MS, 10 * MS, 4 * MS]
    assert list(asked.first) == [3 * MS, 11 * MS, 5 * MS]
    assert list(asked.finish) == [5 * MS, 11 * MS, 6 * MS]


def test_conversations_in_flight_make_room_for_others() -> None:
    asked = requests([10] * 5, [2] * 5)
    think = thinking(array("q", [0, 0, 1, 2, 2]), array("q", [0, MS, 0, 0, 4 * MS]))
    serve_sessions(replica(asked), asked, think, in_flight=1)
    # each answer takes 2 ms: 0-2, pause, 3-5, then conversation 1: 5-7, conversation 2: 7-9, 13-15
    assert [at // MS for at in asked.arrival] == [0, 3, 5, 7, 13]
    assert [at // MS for at in asked.finish] == [2, 5, 7, 9, 15]


def test_requests_of_the_same_time_come_in_the_order_of_their_numbers() -> None:
    asked = requests([10, 20, 30, 40], [1, 1, 1, 1], [0.004, 0.0, 0.0, 0.0])
    one_place = replica(asked, places=1)
    drive(one_place, asked, [(0, 3), (0, 1), (0, 2)], lambda _: None)
    assert [at // MS if at >= 0 else at for at in asked.finish] == [NEVER, 1, 2, 3]


def test_an_open_loop_is_the_same_by_either_driver() -> None:
    columns = [7, 300, 20, 1500, 5], [5, 1, 9, 2, 4], [0.0005, 0.003, 0.003, 0.0015, 0.2]
    one, other = requests(*columns), requests(*columns)
    serve(replica(one, places=2), one)
    drive(replica(other, 2), other, zip(other.arrival, range(5), strict=True), lambda _: None)
    for name in ("arrival", "scheduled", "first", "finish"):
        assert getattr(one, name) == getattr(other, name)


def test_a_closed_loop_of_one_is_one_after_the_other() -> None:
    asked = requests([10, 10, 10], [2, 3, 1])
    serve_closed(replica(asked), asked, 1)
    assert [at // MS for at in asked.arrival] == [0, 2, 5]
    assert [at // MS for at in asked.finish] == [2, 5, 6]
