"""Every house rule is quiet on a clean tree and reports a deliberate breach: the walls hold."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.house import wheel_contents
from tests.house.breaches import BREACHES, Breach
from tests.house.rules import startup, tracked
from tests.house.rules.table import NEED_GIT, RULES

ROOT = Path(__file__).resolve().parents[2]

CLEAN = {
    "README.md": "# moesim\n",
    "LICENSE": "\n",
    "CHANGELOG.md": "# Changelog\n",
    "hwprofiles/accelerators/chip.yaml": (
        "devices: 8\n"
        "memory: {value: 80 GiB, source: a data sheet, kind: datasheet}\n"
        "curve: {source: a run, kind: fitted, points: [1 us, 2 us]}\n"
    ),
    "scenarios/small.yaml": "memory: 80 GiB\n",
    "validation/README.md": "# Validation\n",
    "tests/unit/test_nothing.py": "",
    "moesim/__main__.py": '"""Nothing."""\n',
    "moesim/__init__.py": '"""moesim."""\n\n__all__: list[str] = []\n',
    "moesim/model/catalogue/small.yaml": "source: its config.json\nhidden: 64\n",
    "moesim/cost/kernels.py": (
        '"""Kernels."""\n\nimport numpy as np\n\nfrom moesim import units\n\nTABLE = {"a": 1}\n\n\n'
        "def gemm_s(work: float) -> float:\n"
        '    """Return seconds."""\n    rows = []\n    rows.append(np.sum(work))\n'
        "    return float(units.parse(str(rows[0]), 's'))\n"
    ),
    "moesim/units.py": '"""Units."""\n',
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree in which every house rule holds."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, text in CLEAN.items():
        write(tmp_path, path, text)
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def track(root: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is absent")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    assert tracked.files(root)


@pytest.mark.parametrize("name", RULES)
def test_a_clean_tree_is_quiet(name: str, tree: Path) -> None:
    if name in NEED_GIT:
        track(tree)
    assert RULES[name](tree) == []


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: f"{breach.rule}: {breach.says}")
def test_the_rule_reports_the_breach(
    breach: Breach, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "WALL_S", 0.0)  # only the startup-time rule looks at these
    monkeypatch.setattr(startup, "WALL_RATIO", 0.0)
    for path, text in breach.files:
        write(tree, path, text)
    if breach.rule in NEED_GIT:
        track(tree)
    found = RULES[breach.rule](tree)
    assert any(breach.says in what for what in found), found


def test_every_rule_has_a_breach() -> None:
    assert {breach.rule for breach in BREACHES} == set(RULES)


def test_a_missing_top_level_folder_is_reported(tree: Path) -> None:
    shutil.rmtree(tree / "scenarios")
    track(tree)
    assert RULES["top-level"](tree) == ["scenarios: missing at the top level"]


def test_a_slow_machine_does_not_look_like_a_slow_start() -> None:
    assert startup.too_slow(help_s=0.7, bare_s=0.02)
    assert not startup.too_slow(help_s=0.5, bare_s=0.02)
    assert not startup.too_slow(help_s=1.5, bare_s=0.1)


def test_a_wheel_without_a_shipped_file_is_reported(tree: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "wheel"), "zip", tree, "moesim/model")
    found = wheel_contents.violations(tree, Path(archive))
    assert "scenarios/small.yaml: not in the wheel" in found
    assert "moesim/units.py: not in the wheel" in found
    assert not any("catalogue" in what for what in found)
