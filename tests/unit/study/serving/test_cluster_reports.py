"""What happened between replicas stands in every report: who, when, how often."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from moesim.spec.load import load_serving
from moesim.study.report.serving.files import contents
from moesim.study.report.serving.pool_words import layout_words
from moesim.study.report.serving.terminal import print_result
from moesim.study.serving.extras import extras
from moesim.study.serving.result import ServingResult
from moesim.study.serving.run import serve
from moesim.study.serving.usage import engine_places

BASE = """
model: olmoe-1b-7b
cluster: {profile: dgx-h100, devices: 4}
serving:
  workload: {rate: 30 /s, requests: 150, prompt: 512, output: {law: uniform, low: 2, high: 200}}
"""
APART = """
  cluster:
    disaggregation: prefill_decode
    prefill: {replicas: 1, parallel: {tp: 2}}
    decode: {replicas: 1, parallel: {dp: 2, ep: 2}}
"""
FAILING = """
  cluster:
    failures: {device_mtbf: 5 s, restart: 1 s}
    autoscaling: {minimum: 2, maximum: 4, target: 4, interval: 500 ms, start_up: 500 ms}
"""
SESSIONS = """
  cluster: {router: session_affinity}
"""


def _served(folder: Path, text: str, *settings: str) -> ServingResult:
    file = folder / "scenario.yaml"
    file.write_text(text)
    return serve(load_serving(file, settings))


def _terminal(result: ServingResult) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    print_result(result, console)
    return console.export_text()


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> ServingResult:
    return _served(tmp_path_factory.mktemp("apart"), BASE + APART)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> ServingResult:
    return _served(tmp_path_factory.mktemp("failing"), BASE + FAILING)


def test_engines_have_their_pool_replica_and_rank(apart: ServingResult) -> None:
    outcome = apart.model.outcome
    places = engine_places(outcome.run.pools, outcome.logs)
    assert [place.name for place in places] == [
        "prefill replica 0", "decode replica 0 rank 0", "decode replica 0 rank 1",
    ]  # fmt: skip
    assert layout_words(apart.model) == "prefill: tp 2; decode: dp 2, ep 2"


def test_each_pool_has_its_memory_iterations_and_engine(apart: ServingResult) -> None:
    prefill, decode = apart.model.pools
    assert not prefill.decode and not decode.prompts
    assert prefill.usage.prompt_iterations == prefill.usage.iterations
    assert decode.usage.prompt_tokens is None
    assert prefill.memory.parts_bytes != decode.memory.parts_bytes
    rows = apart.tables()["iterations"]
    assert {(row["pool"], bool(row["prompt_tokens"])) for row in rows} == {
        ("prefill", True), ("decode", False),
    }  # fmt: skip
    assert {row["pool"] for row in apart.tables()["memory"]} == {"prefill", "decode"}
    assert {row["pool"] for row in apart.tables()["engine"]} == {"prefill", "decode"}
    named = {pool["name"]: pool for pool in apart.summary()["model"]["pools"]}
    assert named["prefill"]["engine"]["tp"] == 2
    assert named["decode"]["engine"]["dp"] == 2
    for text in (_terminal(apart), apart.html()):
        assert "prefill replicas" in text and "decode replicas" in text
        assert "caches moved from prefill to decode" in text


def test_prompts_are_computed_once_each_on_the_prefill_pool(apart: ServingResult) -> None:
    """150 prompts of 512 tokens; every request of two tokens or more sends its cache."""
    last = {}
    for row in apart.tables()["timeline"]:
        last[row["pool"], row["rank"]] = row
    assert last["prefill", 0]["prompt_tokens"] == 150 * 512
    asked = apart.model.outcome.requests
    assert last["prefill", 0]["first_tokens"] == 150
    decoded = sum(row["decoded_tokens"] for (pool, _), row in last.items() if pool == "decode")
    assert decoded == sum(asked.output) - 150
    assert apart.summary()["model"]["replicas"]["transfers"] == sum(n > 1 for n in asked.output)


def test_caches_on_their_way_are_slices_of_the_trace(apart: ServingResult) -> None:
    events = json.loads(contents(apart)["trace.json"])["traceEvents"]
    begins = {one["id"]: one for one in events if one["ph"] == "b"}
    ends = {one["id"]: one for one in events if one["ph"] == "e"}
    asked = apart.model.outcome.requests
    assert set(begins) == set(ends) == {n for n, out in enumerate(asked.output) if out > 1}
    for request, one in begins.items():
        assert one["ts"] == pytest.approx(asked.first[request] / 1e6, abs=1e-3)
        assert one["ts"] <= ends[request]["ts"]


def test_failures_and_scaling_stand_in_every_report(failing: ServingResult) -> None:
    found = failing.model.outcome.cluster
    assert found is not None and found.failures
    events = failing.tables()["events"]
    assert sum(row["event"] == "fails" for row in events) == found.failures
    assert [row["time_s"] for row in events] == sorted(row["time_s"] for row in events)
    assert "failures of replicas" in _terminal(failing)
    for words in ("failures of replicas", "replica hours", "price of held devices"):
        assert words in failing.html()
    trace = json.loads(contents(failing)["trace.json"])["traceEvents"]
    marks = [one["name"] for one in trace if one["ph"] == "i"]
    assert marks.count("fails") == found.failures


def test_ready_replicas_add_up(failing: ServingResult) -> None:
    """Ready: up by one where one takes requests, down by one where one that did goes."""
    ready = {0, 1, 2, 3}
    for row in failing.tables()["events"]:
        if row["event"] == "takes requests":
            ready.add(row["replica"])
        elif row["event"] in ("fails", "drains", "off"):
            ready.discard(row["replica"])
        if row["time_s"]:  # those that are off at first go all at once
            assert row["ready"] == len(ready), row
    assert failing.model.outcome.run.replicas == 4


def test_held_device_time_is_that_of_the_events(failing: ServingResult) -> None:
    """Devices are held from "starts" to "off"; two replicas hold theirs from 0 on."""
    outcome = failing.model.outcome
    end = max(outcome.requests.finish) / 1e12
    since = dict.fromkeys((0, 1), 0.0)
    total = 0.0
    for row in outcome.events:
        if row.event == "starts":
            since[row.replica] = row.time_s
        elif row.event == "off" and row.replica in since:
            total += row.time_s - since.pop(row.replica)
    total += sum(end - at for at in since.values())
    assert outcome.cluster is not None
    assert outcome.cluster.replica_s == pytest.approx(total, rel=0.02)
    assert outcome.cluster.held_fraction == pytest.approx(total / (4 * end), rel=0.02)


def test_counters_of_each_engine_end_where_requests_do(apart: ServingResult) -> None:
    text = contents(apart)["metrics.txt"]
    assert isinstance(text, str)
    asked, last = apart.model.outcome.requests, {}
    for line in text.splitlines():
        if line.startswith("vllm:generation_tokens_total"):
            last[line.split()[0]] = float(line.split()[1])
    assert len(last) == 3
    assert sum(last.values()) == sum(asked.output)
    steps = [line for line in text.splitlines() if line.startswith("vllm:iteration_tokens_total")]
    count = float(next(line for line in steps if "_count" in line).split()[1])
    assert count == sum(pool.usage.iterations for pool in apart.model.pools)


def test_hits_of_the_prefix_cache(tmp_path: Path) -> None:
    """Turns of 64 tokens after 640 shared ones, blocks of 16: all that came before is found."""
    text = BASE.replace("prompt: 512", "prompt: 64").replace(
        "output: {law: uniform, low: 2, high: 200}",
        "output: 16, sessions: {turns: 3, think_mean: 2 s, shared_prefix: 640}",
    ).replace("rate: 30 /s", "rate: 2 /s")  # fmt: skip
    result = _served(tmp_path, text + SESSIONS)
    found = extras(result.model.outcome, result.model.pools)
    asked = result.model.outcome.requests
    assert found.prefix_hit_fraction == pytest.approx(sum(asked.cached) / sum(asked.prompt))
    assert found.prefix_hit_fraction is not None and found.prefix_hit_fraction > 0.8
    places = engine_places(result.model.outcome.run.pools, result.model.outcome.logs)
    hits = sum(int(np.sum(log.hits[1::2])) for place in places for log in place.logs)
    assert hits == sum(asked.cached)
    assert "found in the prefix cache" in _terminal(result)


def test_missing_experts_and_guesses_are_told(tmp_path: Path) -> None:
    """Half of 64 experts away: half of the distinct ones that a token's 8 choices make."""
    one = "cluster.devices=1"
    workload = "{arrivals: closed, in_flight: 1, requests: 3, prompt: 64, output: 32}"
    text = BASE[: BASE.index("{rate")] + workload + "\n"
    result = _served(tmp_path, text, one, "serving.offload={resident_experts: 32}")
    found = extras(result.model.outcome, result.model.pools)
    assert found.asked_experts == pytest.approx(8)
    assert found.missing_experts == pytest.approx(4)
    assert "4.00 of 8.00 asked for" in _terminal(result)
    guesses = "serving.engine.speculative={draft_tokens: 2, acceptance: 0.5, draft_model: %s}"
    result = _served(tmp_path, text, one, guesses % "olmoe-1b-7b")
    assert extras(result.model.outcome, result.model.pools).tokens_per_step == 1.75
    assert "guesses included" in _terminal(result)
