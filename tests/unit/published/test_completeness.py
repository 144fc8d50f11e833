"""Every published row of moe-semantics.yaml has a test, or (bands only) a stated reason.

validation/moe-semantics.yaml holds the reasons, and what is off where a test says so.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.shared_files import shared
from tests.unit.published.registry import TESTS

ROOT = Path(__file__).resolve().parents[3]
USES = ("exact", "band", "context")
PROSE = ("source", "kind", "use", "method", "keys", "formula", "note")


def rows_of(data: Mapping[str, Any]) -> dict[str, str]:
    """Return section.row -> use; a mapping that has a use of its own gives it to its tables."""
    return dict(pair for name, section in data.items() for pair in _rows(name, section))


def _rows(name: str, section: Any) -> Iterator[tuple[str, str]]:
    if isinstance(section, list):
        for row in section:
            yield f"{name}.{row.get('id') or row['system']}", row["use"]
        return
    for key, value in section.items():
        if key not in PROSE and isinstance(value, (dict, list)):
            own: Any = value
            yield f"{name}.{key}", section.get("use") or own["use"]


def _published() -> dict[str, str]:
    return rows_of(YAML(typ="safe").load(shared("published/moe-semantics.yaml")))


def _explained() -> list[dict[str, str]]:
    data: Any = YAML(typ="safe").load(ROOT / "validation/moe-semantics.yaml")
    found: list[dict[str, str]] = data["rows"]
    return found


@cache
def _functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def gaps(published: Mapping[str, str], tested: set[str], explained: set[str]) -> list[str]:
    """Return the rows that nothing checks, and names of rows that are not published."""
    found = [f"{row} has an unknown use {use}" for row, use in published.items() if use not in USES]
    for row, use in published.items():
        if use == "exact" and row not in tested:
            found.append(f"{row} is exact and has no test")
        if use == "band" and row not in tested | explained:
            found.append(f"{row} is a band and has neither test nor explanation")
        if use == "context" and row in tested:
            found.append(f"{row} is context and has a test")
    return found + [
        f"{row} is not published" for row in sorted(tested | explained) if row not in published
    ]


def test_every_row_has_a_test_or_an_explanation() -> None:
    assert gaps(_published(), set(TESTS), {row["id"] for row in _explained()}) == []


def test_as_many_rows_as_were_counted() -> None:
    """A row that is read away by mistake would need no test."""
    uses = list(_published().values())
    assert {use: uses.count(use) for use in USES} == {"exact": 29, "band": 38, "context": 16}


@pytest.mark.parametrize("row", TESTS)
def test_registered_tests_exist(row: str) -> None:
    for place in TESTS[row]:
        path, name = place.split("::")
        assert name in _functions(path), place


def test_explanations_say_what_is_compared_and_why() -> None:
    rows = _explained()
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"id", "tested", "moesim", "why"}, row["id"]
        assert row["tested"] in ("all", "part", "none"), row["id"]
        assert (row["tested"] == "none") is (row["id"] not in TESTS), row["id"]
        assert len(row["why"]) > 40, row["id"]
        assert row["moesim"], row["id"]


def test_gaps_are_found() -> None:
    published = rows_of(
        {
            "a": [{"id": "x", "use": "exact"}, {"system": "y", "use": "band"}],
            "b": {"use": "exact", "source": "s", "table": {"k": 1}, "factor": 2},
            "c": {"law": {"use": "context", "kind": "k"}},
        }
    )
    assert published == {"a.x": "exact", "a.y": "band", "b.table": "exact", "c.law": "context"}
    assert gaps(published, {"a.x", "b.table"}, {"a.y"}) == []
    assert len(gaps(published, set(), set())) == 3
    # an explanation does not do for an exact row
    assert gaps(published, {"a.x"}, {"a.y", "b.table"}) == ["b.table is exact and has no test"]
    assert gaps(published, {"a.x", "b.table", "c.law", "d.z"}, {"a.y"}) == [
        "c.law is context and has a test", "d.z is not published",
    ]  # fmt: skip
