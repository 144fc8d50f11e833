"""`moesim import megatron` and its table."""

from pathlib import Path

from typer.testing import CliRunner

from moesim.cli.main import app
from tests.unit.study.test_imports import MIXTRAL

RUNNER = CliRunner()


def test_a_quoted_command_line_becomes_a_scenario() -> None:
    found = RUNNER.invoke(
        app, ["import", "megatron", MIXTRAL.strip(), "--accelerator", "h100-sxm", "--devices", "64"]
    )
    assert found.exit_code == 0, found.output
    assert "model: mixtral-8x7b" in found.stdout
    assert (
        "  pp: 4                                 # --pipeline-model-parallel-size 4" in found.stdout
    )


def test_a_script_becomes_files_that_run(tmp_path: Path) -> None:
    script, out = tmp_path / "run.sh", tmp_path / "mine.yaml"
    text = MIXTRAL.replace("--num-layers 32", "--num-layers $DEPTH")
    script.write_text(f"torchrun --nnodes 1 --nproc_per_node 8 train.py \\\n {text}")
    options = ["--accelerator", "h100-sxm", "--file", str(script), "--out", str(out)]
    refused = RUNNER.invoke(app, ["import", "megatron", *options])
    assert refused.exit_code == 2
    assert "run.sh:1:1: ${DEPTH} in '${DEPTH}' is not set; give it by --var" in refused.output
    options += ["--var", "DEPTH=4", "--nnodes", "4", "--nproc-per-node", "8"]
    done = RUNNER.invoke(app, ["import", "megatron", *options])
    assert done.exit_code == 0, done.output
    ran = RUNNER.invoke(app, ["run", str(out), "--json"])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "mine-model.yaml").exists()


def test_explain_tells_what_became_of_each_argument() -> None:
    words = [*MIXTRAL.split(), "--use-sharp", "--nonsense", "1"]
    options = ["--accelerator", "h100-sxm", "--devices", "64", "--explain"]
    refused = RUNNER.invoke(app, ["import", "megatron", *options, *words])
    assert refused.exit_code == 2
    assert "--nonsense: unknown argument" in refused.output
    found = RUNNER.invoke(app, ["import", "megatron", *options, "--allow-unknown", *words])
    assert found.exit_code == 0, found.output
    lines = [" ".join(line.split()) for line in found.stdout.splitlines()]
    assert "--num-layers 32 mapped model.layers: 32" in lines
    assert "--nonsense 1 unknown nothing" in lines
    assert any(line.startswith("--use-sharp not modelled") for line in lines)
    assert "--cross-entropy-loss-fusion training.cross_entropy unfused fused" in lines
