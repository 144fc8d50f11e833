"""`moesim import vllm` and its siblings, and their tables."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from moesim.cli.main import app

RUNNER = CliRunner()
SERVE = "vllm serve mistralai/Mixtral-8x7B-Instruct-v0.1 --tensor-parallel-size 2 --max-num-seqs 8"


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        ("vllm", SERVE),
        ("sglang", "python -m sglang.launch_server --model Qwen/Qwen3-30B-A3B --tp 2 --ep 2"),
        ("trtllm", "trtllm-serve Qwen/Qwen3-30B-A3B --tp_size 2 --max_batch_size 8"),
    ],
)
def test_a_command_line_becomes_a_scenario_that_runs(
    engine: str, line: str, tmp_path: Path
) -> None:
    out = tmp_path / "mine.yaml"
    options = ["--accelerator", "h100-sxm", "--in-flight", "2", "--output-tokens", "8"]
    done = RUNNER.invoke(app, ["import", engine, line, *options, "--out", str(out)])
    assert done.exit_code == 0, done.output
    ran = RUNNER.invoke(app, ["run", str(out)])
    assert ran.exit_code == 0, ran.output


def test_keys_say_the_arguments_they_come_from() -> None:
    done = RUNNER.invoke(app, ["import", "vllm", SERVE, "--accelerator", "h100-sxm"])
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "tp: 2 # --tensor-parallel-size 2" in lines
    assert "model: mixtral-8x7b # mistralai/Mixtral-8x7B-Instruct-v0.1" in lines


def test_explain_tells_arguments_and_settings() -> None:
    options = ["--accelerator", "h100-sxm", "--engine-version", "0.19.0", "--explain"]
    done = RUNNER.invoke(app, ["import", "vllm", f"{SERVE} --swap-space 4", *options])
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "--max-num-seqs 8 mapped serving.engine.max_sequences: 8" in lines
    assert any(line.startswith("--swap-space 4 not modelled") for line in lines)
    assert "max_sequences 8 the scenario" in lines
    assert any(line.startswith("engine vllm 0.17 (vllm 0.19.0: defaults of 0.17") for line in lines)


def test_mistakes_end_with_2() -> None:
    options = ["--accelerator", "h100-sxm"]
    done = RUNNER.invoke(app, ["import", "vllm", f"{SERVE} --enforce-eage", *options])
    assert done.exit_code == 2
    assert "Did you mean '--enforce-eager'" in done.output
    assert RUNNER.invoke(app, ["import", "sglang", *options]).exit_code == 2


def test_a_script_and_an_options_file(tmp_path: Path) -> None:
    script, config = tmp_path / "run.sh", tmp_path / "config.yaml"
    script.write_text(f"TP=2\n# serve\n{SERVE.replace('-size 2', '-size $TP')} \\\n  --port 80 &\n")
    options = ["--accelerator", "h100-sxm", "--file"]
    done = RUNNER.invoke(app, ["import", "vllm", *options, str(script)])
    assert done.exit_code == 0, done.output
    assert "tp: 2" in done.stdout
    config.write_text("no-enable-prefix-caching: true\nmax-num-batched-tokens: 4096\n")
    line = f"{SERVE} --config config.yaml"
    beside = RUNNER.invoke(app, ["import", "vllm", line, *options, str(config)])
    assert beside.exit_code == 0, beside.output
    assert "token_budget: 4096" in beside.stdout
    alone = RUNNER.invoke(app, ["import", "vllm", line, "--accelerator", "h100-sxm"])
    assert "# --config config.yaml was not read: give the file by --file" in alone.stdout
