"""What a user installs holds all that a checkout has, and the README's commands can be found."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.house import readme_blocks, wheel_contents

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_holds_the_package_and_everything_shipped_beside_it(tmp_path: Path) -> None:
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is absent; .ci/run checks the wheel in its own step")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel_contents.violations(ROOT, wheel) == []


def test_sh_blocks_run_and_others_do_not() -> None:
    text = "```sh\none\n```\n```console\ntwo\n```\n```sh no-ci\nthree\n```\n```sh\nfour\n```\n"
    assert readme_blocks.commands(text) == ["one\n", "four\n"]
    assert readme_blocks.script(text).splitlines() == ["set -euxo pipefail", "one", "", "four"]


def test_a_readme_without_commands_is_an_error() -> None:
    with pytest.raises(ValueError, match="no fenced block marked sh"):
        readme_blocks.commands("# moesim\n```text\nhello\n```\n")
