"""`moesim explain A B`."""

from pathlib import Path

from typer.testing import CliRunner

from moesim.cli.main import app
from tests.unit.study.test_waterfall import BASE

RUNNER = CliRunner()


def test_two_scenarios_are_explained_key_by_key(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(BASE)
    second.write_text("extends: a.yaml\nparallel: {pp: 2, vpp: 2, ep: 4}\n")
    found = RUNNER.invoke(app, ["explain", str(first), str(second)])
    assert found.exit_code == 0, found.output
    lines = [line.split() for line in found.stdout.splitlines()]
    assert ["dp:", "8", "->", "4"] in lines
    assert ["parallel.ep", "8", "4"] in [line[:3] for line in lines]
    assert "parallel.vpp cannot change alone: " in found.stdout
    assert [line[0] for line in lines if line[:1] in (["first"], ["interaction"], ["second"])] == [
        "first", "interaction", "second",
    ]  # fmt: skip
    same = RUNNER.invoke(app, ["explain", str(first), str(first)])
    assert same.stdout == "No key differs.\n"


def test_what_cannot_be_simulated_is_an_error(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(BASE)
    second.write_text("extends: a.yaml\nparallel: {ep: 3}\n")
    found = RUNNER.invoke(app, ["explain", str(first), str(second)])
    assert found.exit_code == 2
    assert "b.yaml:2:" in found.output
