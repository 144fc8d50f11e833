"""Laws of how requests come: none is lost, none before its cause, and a trace of a run is the run.

L2 and L3 of the driver, N in flight in closed loops, run -> trace -> replay.
"""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import rng
from moesim.cost.iteration import TabledTimes
from moesim.sim.serving.driver import Engine
from moesim.sim.serving.lockstep import Lockstep, fewest_waiting
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests
from moesim.sim.serving.rules import EngineRules
from moesim.spec.serving.workload import WorkloadSpec
from moesim.study.serving.conversations import pauses
from moesim.study.serving.metrics import metrics
from moesim.study.serving.traces.write import write_trace
from moesim.study.serving.workload import drawn, serve_workload

LENGTHS = {
    "prompt": {"law": "lognormal", "mean": 300.0, "cv": 1.0},
    "output": {"law": "lognormal", "mean": 40.0, "cv": 1.0},
    "requests": 300,
}
SESSIONS = {"turns": {"law": "uniform", "low": 1, "high": 6}, "shared_prefix": 150}
LOADS: dict[str, dict[str, Any]] = {
    "poisson": {"rate": "20 /s"},
    "constant": {"arrivals": "constant", "rate": "15 /s"},
    "bursty": {"arrivals": "gamma", "rate": "20 /s", "burstiness": 0.2},
    "offline": {"load": "mlperf-offline"},
    "closed": {"arrivals": "closed", "in_flight": 12},
    "sessions": {
        "rate": "6 /s", "sessions": {**SESSIONS, "think": "exponential", "think_mean": "400 ms"},
    },
    "sessions without a pause": {"rate": "6 /s", "sessions": SESSIONS},
    "sessions in a closed loop": {
        "arrivals": "closed", "in_flight": 9, "sessions": {**SESSIONS, "think_mean": "70 ms"},
    },
}  # fmt: skip


def times() -> TabledTimes:
    """Return iterations of 2 ms and more, with attention that grows with the cache."""
    return TabledTimes(
        lambda n: ((0, 1000, 100_000), (1e-4, 1e-4 + 1e-6 * n, 1e-2)),
        lambda tokens, sequences, _: 2e-3 + 1e-5 * tokens + 1e-6 * sequences,
        lambda tokens, past: 1e-9 * tokens * (tokens + past),
    )


def server(asked: Requests, ranks: int = 1, *, one_by_one: bool = False) -> Engine:
    rules = EngineRules(max_sequences=16, token_budget=512, blocks=600)
    if ranks == 1:
        return Replica(rules, times(), asked, one_by_one)
    replicas = [Replica(rules, times(), asked) for _ in range(ranks)]
    return Lockstep(replicas, times(), fewest_waiting)


def spec(load: str) -> WorkloadSpec:
    return WorkloadSpec(**{**LENGTHS, **LOADS[load]})


def replayed_from(path: Path) -> WorkloadSpec:
    keys: dict[str, Any] = {"trace": str(path)}
    return WorkloadSpec(**keys)


def served(load: str, seed: int, ranks: int = 1, *, one_by_one: bool = False) -> Requests:
    asked = drawn(spec(load), seed)
    serve_workload(server(asked, ranks, one_by_one=one_by_one), asked, spec(load), seed)
    return asked


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("load", LOADS)
def test_every_request_is_served_once_and_in_order(load: str, ranks: int) -> None:
    for seed in range(5):
        asked = served(load, seed, ranks)
        rows = zip(asked.arrival, asked.scheduled, asked.first, asked.finish, strict=True)
        assert all(0 <= at <= began < first <= end for at, began, first, end in rows)


@pytest.mark.parametrize("load", LOADS)
def test_skipping_steps_changes_nothing(load: str) -> None:
    for seed in range(3):
        fast, slow = served(load, seed), served(load, seed, one_by_one=True)
        for name in ("arrival", "scheduled", "first", "finish", "preemptions"):
            assert getattr(fast, name) == getattr(slow, name)


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("load", [load for load in LOADS if "sessions" in load])
def test_a_turn_comes_its_pause_after_the_one_before(load: str, ranks: int) -> None:
    for seed in range(5):
        asked = served(load, seed, ranks)
        sessions = spec(load).sessions
        assert sessions is not None
        assert asked.session is not None and asked.turn is not None
        think = pauses(sessions, asked, rng.stream(seed, "think times"))
        for one, two in pairwise(range(len(asked))):
            if asked.turn[two]:
                assert asked.session[one] == asked.session[two]
                assert asked.arrival[two] == asked.finish[one] + think.pause[two]


def in_flight(starts: "np.ndarray[Any, Any]", ends: "np.ndarray[Any, Any]") -> set[int]:
    """Return how many were in flight between any two events up to the start of the last."""
    events = np.concatenate((starts, ends))
    change = np.concatenate((np.ones(len(starts)), -np.ones(len(ends))))
    order = np.argsort(events, kind="stable")
    moments, last = np.unique(events[order], return_index=True)
    level = np.cumsum(change[order])[np.append(last[1:], len(events)) - 1]
    return {int(n) for n in level[moments < starts.max()]}


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_closed_loop_keeps_as_many_in_flight_as_asked(ranks: int) -> None:
    for seed in range(5):
        asked = served("closed", seed, ranks)
        assert in_flight(np.asarray(asked.arrival), np.asarray(asked.finish)) == {12}


def test_a_closed_loop_of_conversations_keeps_as_many_of_them_going() -> None:
    for seed in range(5):
        asked = served("sessions in a closed loop", seed)
        first = np.flatnonzero(np.asarray(asked.turn) == 0)
        last = np.append(first[1:], len(asked)) - 1
        begun, ended = np.asarray(asked.arrival)[first], np.asarray(asked.finish)[last]
        assert in_flight(begun, ended) == {9}


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("load", LOADS)
def test_a_trace_of_a_run_gives_the_run_again(load: str, ranks: int, tmp_path: Path) -> None:
    for seed in range(3):
        asked = served(load, seed, ranks)
        path = tmp_path / "run.jsonl"
        write_trace(asked, path)
        replay = replayed_from(path)
        again = drawn(replay, seed=99)
        serve_workload(server(again, ranks), again, replay, seed=99)
        for name in ("arrival", "scheduled", "first", "finish", "preemptions", "session", "turn"):
            assert getattr(asked, name) == getattr(again, name)
        assert asdict(metrics(asked, 20, 1)) == asdict(metrics(again, 20, 1))
        if asked.prefix is not None:
            assert again.prefix is not None
            assert asked.prefix_block == again.prefix_block
            assert all(asked.prefix[n] == again.prefix[n] for n in range(len(asked)))


def test_what_an_engine_knows_of_the_output_is_replayed_too(tmp_path: Path) -> None:
    asked = drawn(spec("poisson"), 0)
    asked.allowed = asked.output[:]
    asked.allowed[3] += 100
    write_trace(asked, tmp_path / "run.jsonl")
    replay = replayed_from(tmp_path / "run.jsonl")
    assert drawn(replay, 0).allowed == asked.allowed
