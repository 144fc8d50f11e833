"""Case files: what is read, and where what is wrong stands."""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.spec.cases import read_cases


def _read(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cases.yaml"
    path.write_text(text, encoding="utf-8")
    return path


GOOD = """models: {m: {layers: 2}, broken: 3}
hardware: {}
cases:
- id: one
  kind: train_step
  measured: {step_time_s: 1.5}
- id: two
  kind: never heard of
moe_vs_dense: [{dense: one, moe: two}, nonsense]
contrasts: none yet
more: {of: anything}
"""


def test_what_is_said_is_kept_and_what_is_no_mapping_is_left_out(tmp_path: Path) -> None:
    file = read_cases(_read(tmp_path, GOOD))
    assert [(case.id, case.kind) for case in file.cases] == [
        ("one", "train_step"),
        ("two", "never heard of"),
    ]
    assert file.cases[0].part("measured") == {"step_time_s": 1.5}
    assert file.cases[0].part("options") == {}
    assert file.cases[0].text("quality") == ""
    assert dict(file.models) == {"m": {"layers": 2}}
    assert file.pairs == ({"dense": "one", "moe": "two"},)
    assert file.contrasts == ()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("models: {}\n", 1, "cases: must be there, a list of measured cases"),
        ("cases: 3\n", 1, "cases: must be there, a list of measured cases"),
        ("cases:\n- id: a\n  kind: k\n- 3\n", 4, "cases[1]: must be a mapping"),
        ("cases:\n- id: a\n  kind: k\n- id: b\n", 4, "cases[1].kind: must be there, a text"),
        ("cases:\n- kind: k\n", 2, "cases[0].id: must be there, a text"),
        ("cases:\n- id: 3\n  kind: k\n", 2, "cases[0].id: must be there, a text"),
        ("cases:\n- {id: a, kind: k}\n- id: a\n  kind: k\n", 3, "'a' is there twice"),
    ],
)
def test_broken_entries_have_a_place(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = _read(tmp_path, text)
    with pytest.raises(ScenarioError) as caught:
        read_cases(path)
    said = str(caught.value)
    assert message in said
    assert f"{path}:{line}:" in said


def test_all_broken_entries_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        read_cases(_read(tmp_path, "cases:\n- 1\n- id: b\n- kind: c\n"))
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4]
