"""`moesim validate`: which cases, what is printed where, and the check against recorded errors."""

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from moesim.cli.main import app

FEW = ("--only", "mlm-gpt15b", "--workers", "1")


def moesim(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["validate", *arguments])


def test_only_the_cases_asked_for_are_printed() -> None:
    result = moesim(*FEW)
    assert result.exit_code == 0, result.output
    assert "mlm-gpt15b-tp8-h100" in result.stdout
    assert "mbridge" not in result.stdout
    assert "By source" in result.stdout
    assert "NVIDIA/Megatron-LM / speed" in result.stdout


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """Return a file with a case on a machine that nobody knows."""
    path = tmp_path / "strange.yaml"
    path.write_text(
        """
models:
  small: {layers: 2, hidden: 256, dense_ffn: 512, vocab: 1000, attn: {heads: 2, head_dim: 128}}
cases:
  - id: on-an-abacus
    kind: train_step
    cls: dense
    quality: A
    source: someone/somewhere:file@1
    model: small
    hardware: abacus
    chips: 8
    parallel: {mbs: 1, gbs: 8, seq: 1024}
    precision: bf16
    measured: {step_time_s: 1}
""",
        encoding="utf-8",
    )
    return path


def test_a_skipped_case_is_printed_with_its_reason(strange: Path) -> None:
    result = moesim(str(strange), "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "Skipped (1): no machine profile for the hardware 'abacus'" in result.stdout
    assert "on-an-abacus" in result.stdout


def test_the_core_leaves_out_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "records.json"
    moesim("--core", "--only", "mlm-mixtral", "--workers", "1", "--quiet", "--json", str(file))
    cases = {one["case"] for one in json.loads(file.read_text(encoding="utf-8"))}
    assert cases == {"mlm-mixtral8x7b-tp2pp4ep4-h100", "mlm-mixtral8x7b-tp2pp4ep4-a100"}


def test_the_core_is_of_training_and_of_serving_and_groups_of_both_are_recorded(
    tmp_path: Path,
) -> None:
    file = tmp_path / "recorded.csv"
    few = ("--only", "mlm-mixtral", "--only", "exchange-trtllm-gb200-ep16", "--workers", "1")
    assert moesim("--core", *few, "-q", "--record", str(file)).exit_code == 0
    with file.open(encoding="utf-8", newline="") as handle:
        groups = {(row["source"], row["kind"]) for row in csv.DictReader(handle)}
    assert {("NVIDIA/Megatron-LM", "train_step"), ("trtllm_blog18", "kernel_comm")} <= groups
    assert moesim("--core", *few, "-q", "--check", str(file)).exit_code == 0


def test_no_case_left_is_said() -> None:
    result = moesim("--only", "no-such-case")
    assert result.exit_code == 2
    assert "no case is left" in result.stderr


def test_what_was_recorded_passes_the_check_and_a_better_record_fails_it(tmp_path: Path) -> None:
    record = tmp_path / "expected.csv"
    assert moesim(*FEW, "-q", "--record", str(record)).exit_code == 0
    assert moesim(*FEW, "-q", "--check", str(record)).exit_code == 0

    rows = list(csv.DictReader(io.StringIO(record.read_text(encoding="utf-8"))))
    for row in rows:
        row["median"] = row["p90"] = "0.0000" if row["ran"] != "0" else ""
    with record.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    result = moesim(*FEW, "-q", "--check", str(record))
    assert result.exit_code == 3
    assert "Worse than recorded" in result.stderr
    assert "NVIDIA/Megatron-LM / dense / train_step / B / speed: median" in result.stderr
    assert result.stdout == ""


def test_a_table_of_something_else_is_refused_before_anything_runs(tmp_path: Path) -> None:
    record = tmp_path / "expected.csv"
    record.write_text("case,error\n", encoding="utf-8")
    result = moesim("--check", str(record))
    assert result.exit_code == 2
    assert "must have the columns" in result.stderr


def test_the_page_shows_cases_and_says_that_units_differ(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert moesim(*FEW, "-q", "--out", str(out)).exit_code == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    for words in ("mlm-gpt15b-tp8-h100", "each in its own unit", "<b>NVIDIA/Megatron-LM</b>"):
        assert words in page
    assert sorted(path.name for path in out.iterdir()) == [
        "groups.csv", "records.csv", "records.json", "report.html", "summary.json",
    ]  # fmt: skip


def test_the_page_shows_what_was_skipped_and_why(tmp_path: Path, strange: Path) -> None:
    out = tmp_path / "out"
    assert moesim(str(strange), "--workers", "1", "-q", "--out", str(out)).exit_code == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<h2>Skipped</h2>" in page
    assert "no machine profile for the hardware &#x27;abacus&#x27;" in page
    assert "on-an-abacus" in page


@pytest.mark.parametrize("value", ["0", "many"])
def test_workers_are_a_positive_count(value: str) -> None:
    assert moesim("--workers", value).exit_code == 2
