"""`moesim profile fit-software` from a case file to its table."""

from pathlib import Path

from typer.testing import CliRunner, Result

from moesim.cli.main import app

FILE = """
models:
  small: {layers: 2, hidden: 256, dense_ffn: 512, vocab: 1000, attn: {heads: 2, head_dim: 128}}
cases:
"""

CASE = """  - id: NAME
    kind: train_step
    cls: dense
    quality: A
    source: NVIDIA/Megatron-LM:somewhere@1
    model: small
    hardware: HARDWARE
    chips: 8
    parallel: {mbs: 1, gbs: 8, seq: 1024}
    precision: bf16
    measured: {step_time_s: 1}
"""


def case(name: str, hardware: str = "h100_sxm") -> str:
    return CASE.replace("NAME", name).replace("HARDWARE", hardware)


def moesim(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", "fit-software", *arguments, "--workers", "1"])


def test_the_table_says_what_was_fitted_and_what_could_not_run(tmp_path: Path) -> None:
    """A step measured at a second, far too slow: the largest host time is the best."""
    path = tmp_path / "cases.yaml"
    path.write_text(FILE + case("one") + case("abacus", "abacus"), encoding="utf-8")
    result = moesim(str(path))
    assert result.exit_code == 0, result.output
    assert "one model only: its own cases chose, nothing is left out" in result.stdout
    assert "fitted: host_per_kernel 110 us, host_sync 0 us; present: 80 us, 0 us" in result.stdout
    assert "1 cases cannot be run" in result.stdout
    assert "a fitted constant is the last of the grid" in result.stdout
    assert "single layers" not in result.stdout


def test_what_cannot_be_fitted_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(FILE + case("abacus", "abacus"), encoding="utf-8")
    result = moesim(str(path))
    assert result.exit_code == 2
    assert f"no training step in {path} maps to software 'megatron' and runs" in result.output
    result = moesim(str(path), "--software", "megatrn")
    assert result.exit_code == 2
    assert "Did you mean 'megatron'?" in result.output
