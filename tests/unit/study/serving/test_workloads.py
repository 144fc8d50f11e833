"""What a workload draws: arrivals and lengths against closed forms, conversations by hand."""

import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from moesim.errors import ScenarioError
from moesim.spec.serving.workload import WorkloadSpec
from moesim.study.serving.workload import drawn

S = 10**12
SEEDS = range(20)


def workload(**keys: Any) -> WorkloadSpec:
    return WorkloadSpec(**{"prompt": 100, "output": 10, **keys})


@pytest.mark.parametrize(
    ("keys", "cv"),
    [
        ({"arrivals": "constant"}, 0.0),
        ({"arrivals": "poisson"}, 1.0),
        ({"arrivals": "gamma", "burstiness": 0.25}, 2.0),  # cv = 1 / sqrt(shape)
        ({"arrivals": "gamma", "burstiness": 4.0}, 0.5),
    ],
)
def test_gaps_have_the_mean_and_the_spread_of_their_law(keys: dict[str, Any], cv: float) -> None:
    count, rate = 2000, 5.0
    asked = [drawn(workload(requests=count, rate="5 /s", **keys), seed) for seed in SEEDS]
    between = np.array([np.diff(np.asarray(one.arrival), prepend=0) for one in asked]) / S
    error = cv / rate / np.sqrt(between.size)  # standard deviation of a mean of so many
    assert between.mean() == pytest.approx(1 / rate, abs=4 * error + 1e-12)
    squares = np.array([one.std() for one in between])
    assert squares.mean() == pytest.approx(cv / rate, abs=4 * squares.std() / np.sqrt(20) + 1e-3)
    means = between.mean(axis=1)  # over seeds the means spread by cv / (rate sqrt(n))
    expected = cv / rate / np.sqrt(count)
    assert means.std(ddof=1) == pytest.approx(expected, abs=0.65 * expected + 1e-12)


def test_poisson_counts_in_windows_vary_as_much_as_they_are() -> None:
    asked = [drawn(workload(requests=4000, rate="4 /s"), seed) for seed in SEEDS]
    counts = [np.bincount(np.asarray(one.arrival) // (10 * S), minlength=90)[:90] for one in asked]
    joined = np.concatenate(counts)  # 1800 windows of 10 s, 40 requests each
    assert joined.mean() == pytest.approx(40, abs=4 * np.sqrt(40 / 1800))
    dispersion = joined.var() / joined.mean()
    assert dispersion == pytest.approx(1, abs=4 * np.sqrt(2 / 1800))


@pytest.mark.parametrize(
    ("law", "mean", "deviation"),
    [
        (700, 700.0, 0.0),
        ({"law": "uniform", "low": 1, "high": 99}, 50.0, np.sqrt((99**2 - 1) / 12)),
        ({"law": "lognormal", "mean": 1000.0, "cv": 0.5}, 1000.0, 500.0),
        ([10, 10, 40], 20.0, np.sqrt(200.0)),
    ],
)
def test_lengths_have_the_mean_and_the_spread_of_their_law(
    law: Any, mean: float, deviation: float
) -> None:
    asked = [drawn(workload(arrivals="at_once", requests=2000, prompt=law), seed) for seed in SEEDS]
    values = np.array([one.prompt for one in asked], dtype=np.float64)
    assert values.mean() == pytest.approx(mean, abs=4 * deviation / np.sqrt(values.size) + 1e-9)
    assert values.std() == pytest.approx(deviation, rel=0.03, abs=1e-9)
    assert values.min() >= 1


def test_empirical_lengths_come_from_a_file_of_either_side(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens\n30,1\n50,3\n")
    spec = workload(arrivals="at_once", requests=500, prompt=str(path), output="lengths.csv")
    asked = drawn(spec, 0, lambda name: tmp_path / name)
    assert (set(asked.prompt), set(asked.output)) == ({30, 50}, {1, 3})


def test_a_stream_is_its_own() -> None:
    one = drawn(workload(rate="4 /s", prompt=[1, 2, 3]), 5)
    other = drawn(workload(rate="4 /s", prompt=[1, 2, 3], output=[5, 6, 7]), 5)
    assert (one.prompt, one.arrival) == (other.prompt, other.arrival)
    assert drawn(workload(rate="4 /s"), 6).arrival != one.arrival


def test_mlperf_in_one_word() -> None:
    offline = workload(load="mlperf-offline")
    assert (offline.arrivals, offline.requests) == ("at_once", 24_576)
    assert max(drawn(offline, 0).arrival) == 0
    server = workload(load="mlperf-server", rate="7.5 /s")
    assert (server.arrivals, server.requests) == ("poisson", 4500)
    assert workload(load="mlperf-server", rate="90 /min", requests=5).requests == 5
    assert drawn(server, 1).arrival == drawn(workload(rate="7.5 /s", requests=4500), 1).arrival


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"load": "mlperf-server"}, "needs rate"),
        ({"load": "mlperf-offline", "arrivals": "poisson", "rate": "1 /s"}, "has arrivals at_once"),
        ({"arrivals": "trace"}, "arrivals trace needs a trace"),
        ({"rate": "0 /s"}, "rate must be above"),
        ({"rate": "1 /s", "prompt": None}, "needs prompt and output, or a trace"),
        ({"trace": "a.csv"}, "no prompt, output or sessions"),
        ({"trace": "a.csv", "prompt": None, "output": None, "requests": 3}, "trace.head"),
        (
            {"trace": {"file": "a.csv", "speed": 2.0}, "rate": "1 /s", "prompt": None,
             "output": None}, "change the rate",
        ),
        ({"trace": {"file": "a.csv", "start": "2 s", "end": "1 s"}}, "before it starts"),
        ({"rate": "1 /s", "sessions": {"prefixes": 2}}, "prefixes needs shared_prefix"),
        ({"rate": "1 /s", "sessions": {"think": "exponential"}}, "needs think_mean"),
        ({"rate": "1 /s", "prompt": {"law": "empirical"}}, "needs values or file, and nothing"),
        ({"rate": "1 /s", "prompt": {"values": [1], "file": "a.csv", "law": "empirical"}},
         "needs values or file"),
        ({"rate": "1 /s", "prompt": []}, "at least 1 item"),
    ],
)  # fmt: skip
def test_senseless_workloads_are_refused(keys: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        workload(**keys)


TRACE = "\n".join(
    f'{{"timestamp": {at}, "input_length": {n + 1}, "output_length": 2, "hash_ids": [{n}]}}'
    for n, at in enumerate((5, 9, 9, 20))
)


def traced(folder: Path, **keys: Any) -> WorkloadSpec:
    path = folder / "trace.jsonl"
    path.write_text(TRACE)
    return WorkloadSpec(**{"trace": str(path), **keys})


def test_a_trace_comes_at_its_times_unless_asked_otherwise(tmp_path: Path) -> None:
    ms = S // 1000
    itself = drawn(traced(tmp_path), 0)
    assert list(itself.arrival) == [5 * ms, 9 * ms, 9 * ms, 20 * ms]
    assert list(itself.prompt) == [1, 2, 3, 4]
    poisson = drawn(traced(tmp_path, rate="2 /s"), 3)
    assert poisson.arrival == drawn(workload(rate="2 /s", requests=4), 3).arrival
    assert list(poisson.prompt) == [1, 2, 3, 4]
    for keys in ({"arrivals": "at_once"}, {"arrivals": "closed", "in_flight": 2}):
        assert list(drawn(traced(tmp_path, **keys), 0).arrival) == [0] * 4
    with pytest.raises(ScenarioError, match="warm_up 4 leaves none of 4 requests"):
        drawn(traced(tmp_path, warm_up=4), 0)


def test_what_a_clock_cannot_hold_is_refused() -> None:
    with pytest.raises(ScenarioError, match="take longer than 4,000,000 s"):
        drawn(workload(rate="1 /h", requests=2000), 0)


def test_turns_hold_all_that_was_said_and_share_what_they_have_in_common() -> None:
    spec = workload(
        rate="1 /s", requests=7, prompt=[100], output=[10],
        sessions={"turns": 3, "shared_prefix": 200, "prefixes": 2, "think_mean": "1 s"},
    )  # fmt: skip
    asked = drawn(spec, 0)
    assert list(asked.session or ()) == [0, 0, 0, 1, 1, 1, 2]
    assert list(asked.turn or ()) == [0, 1, 2, 0, 1, 2, 0]
    assert list(asked.prompt) == [300, 410, 520, 300, 410, 520, 300]
    assert [at >= 0 for at in asked.arrival] == [True, False, False, True, False, False, True]
    ids = asked.prefix
    assert ids is not None
    assert [len(ids[n]) for n in range(7)] == [4, 6, 8, 4, 6, 8, 4]  # full blocks of 64 tokens
    assert ids[1][:4] == ids[0] and ids[2][:6] == ids[1]
    assert not set(ids[2]) & set(ids[5])  # the other beginning, another conversation
    assert ids[6][:3] == ids[0][:3]  # 200 tokens in common: 3 full blocks
    assert ids[6][3] not in ids[2]


def test_conversations_end_before_they_grow_too_long() -> None:
    spec = workload(
        arrivals="at_once", requests=10, prompt=[100], output=[10],
        sessions={"turns": 9, "longest": 330},
    )  # fmt: skip
    asked = drawn(spec, 0)
    assert list(asked.prompt) == [100, 210, 320] * 3 + [100]  # 320 + 10 fits, 430 + 10 does not
    assert list(asked.session or ()) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    none = workload(arrivals="at_once", sessions={"turns": 9, "longest": 109})
    with pytest.raises(ScenarioError, match="fewer than 1000 of 64000 turns"):
        drawn(none, 0)


@pytest.mark.parametrize("keys", [{}, {"sessions": {"turns": 4, "shared_prefix": 500}}])
def test_a_million_requests_are_drawn_at_once(keys: dict[str, Any]) -> None:
    law = {"law": "lognormal", "mean": 1000.0, "cv": 1.0}
    spec = workload(rate="100 /s", requests=10**6, prompt=law, output=law, **keys)
    began = time.process_time()
    asked = drawn(spec, 0)
    assert time.process_time() - began < 2.0
    assert len(asked) == 10**6


@pytest.mark.parametrize("keys", [{}, {"sessions": {"turns": 4, "shared_prefix": 5000}}])
def test_memory_grows_with_requests_not_with_tokens(keys: dict[str, Any]) -> None:
    spec = workload(rate="100 /s", requests=10**5, prompt=[5000], output=[1000], **keys)
    tracemalloc.start()
    asked = drawn(spec, 0)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    columns = 8 + (5 if asked.session is not None else 0)  # of 8 bytes
    assert kept < 1.1 * 8 * columns * 10**5 + 10**6
    assert most < 250 * 10**5
