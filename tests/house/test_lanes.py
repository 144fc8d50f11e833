"""The test frame itself: markers by folder, warnings are errors, slow tests stay out."""

import tomllib
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[2]


def test_a_test_is_marked_with_its_folder(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("house")
    assert not request.node.get_closest_marker("unit")


def test_a_warning_is_an_error() -> None:
    with pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


def test_the_default_lane_leaves_out_slow_tests() -> None:
    with (ROOT / "pyproject.toml").open("rb") as handle:
        options = tomllib.load(handle)["tool"]["pytest"]["ini_options"]
    assert "-m 'not slow'" in options["addopts"]
    assert "error" in options["filterwarnings"]


def test_slow_examples_do_not_fail_a_property() -> None:
    assert settings().deadline is None
