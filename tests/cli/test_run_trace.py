"""`moesim run --trace`: the requests of a run, replayed, give the run again."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from moesim.cli.main import app
from moesim.spec.shipped import shipped

HEAD = """
name: one
model: qwen3-30b-a3b
cluster: {{profile: dgx-h100, devices: {devices}}}
serving:
  slo: {{ttft: 300 ms, tpot: 25 ms}}
  {more}
  workload: {workload}
"""
LENGTHS = "prompt: {law: lognormal, mean: 900, cv: 1}, output: {law: uniform, low: 1, high: 90}"
TALK = "sessions: {turns: 4, think: exponential, think_mean: 2 s, shared_prefix: 640, prefixes: 3}"
SHORT = "prompt: {law: lognormal, mean: 90, cv: 1}, output: {law: uniform, low: 1, high: 90}"
APART = (
    "cluster: {disaggregation: prefill_decode, prefill: {replicas: 1}, decode: {replicas: 1}}"
)  # fmt: skip
LOADS = {
    "poisson": ("", f"rate: 30 /s, requests: 120, warm_up: 9, {LENGTHS}"),
    "closed": (
        "engine: {max_sequences: 8}",
        f"arrivals: closed, in_flight: 16, requests: 90, warm_up: 16, {LENGTHS}",
    ),
    "talks": (
        "engine: {prefix_caching: true}", f"rate: 3 /s, requests: 120, warm_up: 9, {SHORT}, {TALK}"
    ),
    "talks of a closed loop": (
        "engine: {prefix_caching: true, block_tokens: 32}",
        f"arrivals: closed, in_flight: 6, requests: 120, warm_up: 9, {SHORT}, {TALK}",
    ),
    "offline on sglang": (
        "engine: {name: sglang}", f"load: mlperf-offline, requests: 80, {LENGTHS}"
    ),
    "two replicas by conversation": (
        "cluster: {router: session_affinity}",
        f"arrivals: closed, in_flight: 6, requests: 120, {SHORT}, {TALK}",
    ),
    "prefill and decode apart": (APART, f"arrivals: closed, in_flight: 9, requests: 60, {SHORT}"),
}  # fmt: skip


def moesim(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def ran(folder: Path, name: str, more: str, workload: str) -> Path:
    """Run a scenario with and without its requests written; return the result's folder."""
    devices = 2 if "cluster" in more else 1
    file = folder / f"{name}.yaml"
    file.write_text(HEAD.format(devices=devices, more=more, workload=f"{{{workload}}}"))
    moesim("run", str(file), "-q", "--out", str(folder / name),
           "--trace", str(folder / f"{name}.jsonl"))  # fmt: skip
    return folder / name


def figures(result: Path) -> dict[str, Any]:
    """Return the figures of the model, without the rate that is asked of open loops alone."""
    found: dict[str, Any] = json.loads((result / "summary.json").read_text())["model"]
    found["beside_decoding"].pop("offered_requests_per_s")
    return found


@pytest.mark.parametrize("load", LOADS)
def test_a_replay_is_the_run_again_and_so_is_its_own(tmp_path: Path, load: str) -> None:
    more, workload = LOADS[load]
    first = ran(tmp_path, "first", more, workload)
    warm_up = next((part for part in workload.split(", ") if part.startswith("warm_up")), "")
    again = ran(tmp_path, "again", more, f"trace: first.jsonl, {warm_up}".rstrip(", "))
    assert figures(first) == figures(again)
    rows = "requests.parquet"
    assert (first / rows).read_bytes() == (again / rows).read_bytes()
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "again.jsonl").read_bytes()


def test_later_turns_find_what_was_said_in_the_cache(tmp_path: Path) -> None:
    """By hand: a prompt has the one before it at its beginning, told apart by 64 tokens."""
    more, workload = LOADS["talks"]
    ran(tmp_path, "first", more, workload)
    again = ran(tmp_path, "again", more, "trace: first.jsonl")
    cached = parquet.read_table(again / "requests.parquet")["cached_tokens"].to_pylist()
    asked = [json.loads(line) for line in (tmp_path / "first.jsonl").read_text().splitlines()]
    assert {one["turn"] for one in asked} == {0, 1, 2, 3}
    for n, one in enumerate(asked):
        if one["turn"]:
            assert one["session_id"] == asked[n - 1]["session_id"]
            assert cached[n] >= asked[n - 1]["input_length"] // 64 * 64 >= 640


def test_what_has_no_requests_or_no_place_is_said(tmp_path: Path) -> None:
    trains = CliRunner().invoke(app, ["run", "mixtral-8x7b-64xh100", "--trace", "a.jsonl"])
    assert trains.exit_code == 2
    assert "--trace writes the requests of a serving scenario; this one trains" in trains.stderr
    file = tmp_path / "one.yaml"
    file.write_text(HEAD.format(devices=1, more="", workload=f"{{{LOADS['poisson'][1]}}}"))
    nowhere = str(tmp_path / "none" / "a.jsonl")
    lost = CliRunner().invoke(app, ["run", str(file), "--json", "--trace", nowhere])
    assert lost.exit_code == 2
    assert f"cannot write {nowhere}: No such file or directory" in lost.stderr
    told = moesim("run", str(file), "--out", str(tmp_path / "r"), "--trace", str(tmp_path / "a.b"))
    assert "serving.workload.trace replays them" in told.replace("\n", " ")


def test_a_trace_that_is_not_there_is_named_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(HEAD.format(devices=1, more="", workload="{trace: azure.csv}"))
    done = CliRunner().invoke(app, ["run", str(file), "-q"])
    assert done.exit_code == 2
    where = f"{file}:8:14: serving.workload.trace.file: {tmp_path / 'azure.csv'}: no such file; "
    assert done.stderr.replace("\n", " ").startswith(where)


def test_init_brings_the_trace_of_a_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    moesim("init", "serving-mooncake-conversation-replay")
    name = "traces/mooncake-like-conversation.jsonl"
    assert (tmp_path / name).read_bytes() == (shipped("scenarios") / name).read_bytes()
