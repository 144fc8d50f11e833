"""The README's worked examples are what the commands print today."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from moesim.spec.load import load_scenario, load_serving
from moesim.spec.shipped import shipped
from moesim.spec.validate import read_document
from moesim.study.report.serving.terminal import print_result as print_serving
from moesim.study.report.terminal import print_result
from moesim.study.run import run
from moesim.study.serving.run import serve

README = Path(__file__).resolve().parents[2] / "README.md"
NAMES = ("mixtral-8x7b-64xh100", "serving-mixtral-8x7b-2xh100")
"""The scenarios shown, training then serving."""


def _block(mark: str, number: int) -> str:
    text = README.read_text(encoding="utf-8")
    found: list[str] = re.findall(rf"^```{mark}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return found[number]


def _console() -> Console:
    return Console(width=100, record=True, file=io.StringIO(), color_system=None)


def _is_shown(console: Console, number: int) -> None:
    printed = [line.rstrip() for line in console.export_text().splitlines()]
    shown = [line.rstrip() for line in _block("console", number).splitlines()]
    assert printed[: len(shown)] == shown


def test_the_output_shown_is_the_output_printed() -> None:
    console = _console()
    print_result(run(load_scenario(NAMES[0])), console)
    _is_shown(console, 0)


def test_the_serving_output_shown_is_the_output_printed() -> None:
    console = _console()
    print_serving(serve(load_serving(NAMES[1])), console)
    _is_shown(console, 1)


@pytest.mark.parametrize("number", [0, 1])
def test_the_scenario_shown_is_the_scenario_shipped(tmp_path: Path, number: int) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(_block("yaml", number), encoding="utf-8")
    shipped_data = read_document(shipped("scenarios") / f"{NAMES[number]}.yaml").data
    del shipped_data["description"]
    assert read_document(file).data == shipped_data
