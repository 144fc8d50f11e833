"""Decode context parallelism in an engine's command line."""

from pathlib import Path

from typer.testing import CliRunner

from moesim.cli.main import app

RUNNER = CliRunner()
OPTIONS = ["--accelerator", "hgx-h200", "--in-flight", "2", "--output-tokens", "8"]


def test_ranks_that_spread_a_cache_are_read_and_run(tmp_path: Path) -> None:
    line, out = "vllm serve deepseek-ai/DeepSeek-V3 -tp 8 -dcp 8 -ep", tmp_path / "mine.yaml"
    done = RUNNER.invoke(app, ["import", "vllm", line, *OPTIONS, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "dcp: 8" in out.read_text(encoding="utf-8")
    ran = RUNNER.invoke(app, ["run", str(out)])
    assert ran.exit_code == 0, ran.output


def test_they_must_divide_the_tensor_parallel_ranks() -> None:
    line = "vllm serve deepseek-ai/DeepSeek-V3 -tp 8 -dcp 3"
    done = RUNNER.invoke(app, ["import", "vllm", line, *OPTIONS])
    assert done.exit_code == 2
    assert "must divide --tensor-parallel-size 8, not 3" in " ".join(done.output.split())
