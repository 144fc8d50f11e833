"""The files of a serving result: complete, consistent with each other, the same every time."""

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from moesim.cli.main import app
from moesim.spec.load import load_serving
from moesim.spec.serving.scenario import ServingScenario
from moesim.study.report.serving.files import contents
from moesim.study.serving.result import ServingResult
from moesim.study.serving.run import serve

SMALL = """
model: olmoe-1b-7b
cluster: {profile: dgx-h100, devices: 1, price: 2 USD/h}
serving:
  slo: {ttft: 200 ms, tpot: 20 ms, attainment: 0.5}
  workload:
    rate: 20 /s
    requests: 60
    warm_up: 5
    prompt: {law: uniform, low: 10, high: 900}
    output: {law: lognormal, mean: 40, cv: 1}
"""
FILES = {
    "summary.json", "timeline.csv", "curve.csv", "engine.csv", "iterations.csv", "memory.csv",
    "kernels.csv", "requests.parquet", "vllm-bench.json", "metrics.txt", "trace.json",
    "report.html",
}  # fmt: skip
PICTURES = ("latencies", "over_time", "iterations", "memory", "curve")


def small(folder: Path, *settings: str) -> ServingScenario:
    file = folder / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    return load_serving(file, settings)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ServingResult:
    return serve(small(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def files(result: ServingResult) -> dict[str, str | bytes]:
    return contents(result)


def test_the_same_scenario_gives_the_same_bytes(
    tmp_path: Path, files: dict[str, str | bytes]
) -> None:
    assert set(files) == FILES
    assert contents(serve(small(tmp_path))) == files


def test_save_writes_all_files_and_replaces_an_earlier_result(
    tmp_path: Path, result: ServingResult
) -> None:
    for _ in range(2):
        result.save(tmp_path / "out")
        assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_the_parquet_has_one_row_per_request_and_the_metrics_in_it(
    result: ServingResult, files: dict[str, str | bytes]
) -> None:
    text = files["requests.parquet"]
    assert isinstance(text, bytes)
    table = parquet.read_table(io.BytesIO(text)).to_pandas()
    assert len(table) == 60
    counts = table[table["counts"]]
    assert len(counts) == 55
    found = result.model.outcome.metrics
    assert counts["ttft_s"].median() == pytest.approx(found.ttft_s.p50)
    assert counts["tpot_s"].median() == pytest.approx(found.tpot_s.p50)
    good = (counts["ttft_s"] <= 0.2) & ~(counts["tpot_s"] > 0.02)
    assert good.mean() == pytest.approx(found.good_fraction)
    assert (table["arrival_s"] <= table["scheduled_s"]).all()
    assert (table["scheduled_s"] <= table["first_token_s"]).all()
    assert (table["first_token_s"] <= table["finish_s"]).all()


def test_the_bench_file_has_milliseconds_and_seconds(
    result: ServingResult, files: dict[str, str | bytes]
) -> None:
    data = json.loads(files["vllm-bench.json"])
    found = result.model.outcome.metrics
    assert data["completed"] == 55
    assert data["median_ttft_ms"] == pytest.approx(1e3 * found.ttft_s.p50)
    assert np.median(data["ttfts"]) == pytest.approx(found.ttft_s.p50)
    assert data["p99_itl_ms"] == pytest.approx(1e3 * found.itl_s.p99)
    assert data["output_throughput"] == pytest.approx(found.output_tokens_per_s)
    for gaps, tokens, ttft, whole in zip(
        data["itls"], data["output_lens"], data["ttfts"], data["latencies"], strict=True
    ):
        assert len(gaps) == tokens - 1
        assert sum(gaps) == pytest.approx(whole - ttft, abs=1e-9)


def test_price_and_energy_are_those_of_the_devices(result: ServingResult) -> None:
    found = result.model.outcome.metrics
    per_hour = 3600 * found.output_tokens_per_s
    assert found.usd_per_million_output_tokens == pytest.approx(2 / per_hour * 1e6)
    assert found.energy_at_tdp_j_per_output_token == pytest.approx(
        700 / found.output_tokens_per_s
    )  # fmt: skip


def test_openmetrics_names_are_those_of_vllm_and_counters_end_where_requests_do(
    result: ServingResult, files: dict[str, str | bytes]
) -> None:
    text = files["metrics.txt"]
    assert isinstance(text, str)
    lines = text.splitlines()
    assert lines[-1] == "# EOF"
    asked = result.model.outcome.requests
    for name, total in (("prompt", sum(asked.prompt)), ("generation", sum(asked.output))):
        last = [line for line in lines if line.startswith(f"vllm:{name}_tokens_total")][-1]
        assert float(last.split()[1]) == total
    count = [line for line in lines if line.startswith("vllm:time_to_first_token_seconds_count")]
    assert count[0].split()[1] == "55"
    named = "vllm:e2e_request_latency_seconds_bucket"
    buckets = [int(line.split()[1]) for line in lines if line.startswith(named)]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 55


def test_slices_of_the_trace_follow_each_other(files: dict[str, str | bytes]) -> None:
    events = json.loads(files["trace.json"])["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    ends = [round(1e3 * (one["ts"] + one["dur"])) for one in slices]
    starts = [round(1e3 * one["ts"]) for one in slices]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert {event["name"] for event in events if event["ph"] == "C"} == {"requests", "cache, %"}


def test_groups_add_up_to_the_iteration(result: ServingResult) -> None:
    run = result.model
    times = run.outcome.logs[0].times
    for batch, parts in run.groups.items():
        attention = parts["attention"]
        assert sum(parts.values()) - attention == pytest.approx(
            times.common_ps(batch, batch) / 1e12, rel=1e-5
        )


def test_the_page_is_drawn_offline(tmp_path: Path, result: ServingResult, chromium: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(result.html(), encoding="utf-8")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--no-first-run", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=10000", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for name in PICTURES:
        drawn = shown.stdout[shown.stdout.rindex(f'<div id="{name}"') :]
        assert 'class="main-svg"' in drawn[:20_000], name


def test_what_is_missed_or_does_not_fit_ends_with_code_3(tmp_path: Path) -> None:
    small(tmp_path)
    file = str(tmp_path / "small.yaml")

    def run(*more: str) -> int:
        return CliRunner().invoke(app, ["run", file, "--check", "--json", *more]).exit_code

    assert run() == 0
    assert run("--set", "serving.slo.tpot=1 ms") == 3
    assert run("--set", "model=deepseek-v3", "--set", "serving.formats.weights=fp8_block128") == 3


def test_an_unknown_dialect_names_the_nearest(tmp_path: Path) -> None:
    small(tmp_path)
    done = CliRunner().invoke(
        app, ["run", str(tmp_path / "small.yaml"), "--metric-dialect", "guidelm"]
    )
    assert done.exit_code == 2
    assert "Did you mean 'guidellm'?" in done.output
