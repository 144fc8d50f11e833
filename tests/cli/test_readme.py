"""The README's worked example is what the command prints today."""

import io
import re
from pathlib import Path

from rich.console import Console

from moesim.spec.load import load_scenario
from moesim.spec.shipped import shipped
from moesim.spec.validate import read_document
from moesim.study.report.terminal import print_result
from moesim.study.run import run

README = Path(__file__).resolve().parents[2] / "README.md"
NAME = "mixtral-8x7b-64xh100"


def _block(mark: str) -> str:
    found = re.search(rf"```{mark}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_output_shown_is_the_output_printed() -> None:
    console = Console(width=100, record=True, file=io.StringIO(), color_system=None)
    print_result(run(load_scenario(NAME)), console)
    printed = [line.rstrip() for line in console.export_text().splitlines()]
    shown = [line.rstrip() for line in _block("console").splitlines()]
    assert printed[: len(shown)] == shown


def test_the_scenario_shown_is_the_scenario_shipped(tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(_block("yaml"), encoding="utf-8")
    shipped_data = read_document(shipped("scenarios") / f"{NAME}.yaml").data
    del shipped_data["description"]
    assert read_document(file).data == shipped_data
