"""The schema file beside the scenarios is the one that moesim writes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from moesim.cli.init import SCHEMAS
from moesim.cli.main import app
from moesim.spec.json_schema import schema_text
from moesim.spec.shipped import shipped


@pytest.mark.parametrize(("name", "kind"), SCHEMAS.items())
def test_the_shipped_schema_is_up_to_date(name: str, kind: str) -> None:
    """If this fails: moesim schema --kind KIND --out scenarios/NAME."""
    text = (shipped("scenarios") / name).read_text(encoding="utf-8")
    assert text == schema_text(kind)


def test_every_scenario_names_it_in_its_first_line() -> None:
    for file in shipped("scenarios").glob("*.yaml"):
        first = file.read_text(encoding="utf-8").splitlines()[0]
        kind = "moesim-serving" if file.name.startswith("serving-") else "moesim"
        assert first == f"# yaml-language-server: $schema={kind}.schema.json", file.name


def test_init_brings_the_schema_along(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    done = CliRunner().invoke(app, ["init", "mixtral-8x7b-64xh100", "--as", str(target)])
    assert done.exit_code == 0
    assert (tmp_path / "moesim.schema.json").read_text(encoding="utf-8") == schema_text("scenario")


def test_init_brings_the_schema_of_serving_along(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    done = CliRunner().invoke(app, ["init", "serving-deepseek-v3-8xh200", "--as", str(target)])
    assert done.exit_code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"mine.yaml", "moesim-serving.schema.json"}
