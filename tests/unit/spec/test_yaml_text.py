"""YAML as text: values of YAML 1.2, a place for every key, and nothing dangerous."""

from typing import Any

import pytest

from moesim.errors import ScenarioError
from moesim.spec.yaml_text import dotted, read_yaml


def data(text: str | bytes) -> Any:
    return read_yaml(text, "f.yaml").data


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ScenarioError) as error:
        read_yaml(text, "f.yaml")
    return [str(problem) for problem in error.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("012", 12),  # 10 in YAML 1.1
        ("0o17", 15),
        ("0x1F", 31),
        ("1e9", 1e9),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.0", -0.0),
        ("12:30", "12:30"),  # 750 in YAML 1.1
        ("1_000", "1_000"),  # 1000 in YAML 1.1
        ("0b11", "0b11"),  # 3 in YAML 1.1
        ("yes", "yes"),  # True in YAML 1.1
        ("off", "off"),
        ("2020-01-01", "2020-01-01"),  # a date in YAML 1.1
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ("80 GiB", "80 GiB"),
        ("nan", "nan"),
        ("[1, a, 2.0]", [1, "a", 2.0]),
        ("{x: 1}", {"x": 1}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = data(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_item_has_a_line_and_a_column() -> None:
    document = read_yaml("# c\na:\n  b: 1\n  list:\n    - x\n    - {y: 2}\n", "f.yaml")
    assert document.positions == {
        (): ("f.yaml", 2, 1),
        ("a",): ("f.yaml", 2, 1),
        ("a", "b"): ("f.yaml", 3, 3),
        ("a", "list"): ("f.yaml", 4, 3),
        ("a", "list", 0): ("f.yaml", 5, 7),
        ("a", "list", 1): ("f.yaml", 6, 7),
        ("a", "list", 1, "y"): ("f.yaml", 6, 8),
    }


def test_what_a_file_lacks_has_the_place_of_its_nearest_parent() -> None:
    document = read_yaml("# c\na:\n  b: 1\n", "f.yaml")
    assert document.at(("a", "missing")) == ("f.yaml", 2, 1)
    assert document.at(("a", "b", "deeper")) == ("f.yaml", 3, 3)
    assert document.at(("nothing", "of", "it")) == ("f.yaml", 2, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "f.yaml:1:1: the file is empty"),
        ("# only a comment\n", "f.yaml:1:1: the file is empty"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: a: the key stands here twice"),
        ("a: {x: 1, x: 2}", "f.yaml:1:11: a.x: the key stands here twice"),
        ("a: .nan", "f.yaml:1:4: a: NaN and infinity are not allowed"),
        ("a: -.inf", "f.yaml:1:4: a: NaN and infinity are not allowed"),
        ("a: 1e400", "f.yaml:1:4: a: '1e400' is too large"),
        ("a: " + "9" * 31, f"f.yaml:1:4: a: '{'9' * 31}' is too large"),
        ("a: !!int 5", "f.yaml:1:4: a: the tag '!!int' is not allowed; leave it out"),
        ("a: !!python/object:os.system {}", "the tag '!!python/object:os.system' is not allowed"),
        ("!x\na: 1", "f.yaml:1:1: the tag '!x' is not allowed"),
        ("a: *b", "f.yaml:1:4: there is no anchor 'b' before this alias"),
        ("a: &b {c: *b}", "f.yaml:1:11: the alias 'b' stands inside its own anchor"),
        ("x: &b 1\n<<: *b", "f.yaml:2:1: <<: merge keys are not supported"),
        ("? [1, 2]\n: 3", "f.yaml:1:3: a key must be plain text"),
        ("&k a: 1", "f.yaml:1:1: a key has no anchor and no tag"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: a second document begins here"),
        ("a: b: c", "f.yaml:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: [1, 2", "f.yaml:1:9: not valid YAML"),
        ("a: 'x", "f.yaml:1:6: not valid YAML"),
        ("a: 1\n\tb: 2", "f.yaml:2:1: not valid YAML"),
        ("a: 1\nb: \x07", "f.yaml:2:4: the character U+0007 is not allowed"),
        ("a: \x00", "f.yaml:1:4: the character U+0000 is not allowed"),
        (b"a: 1\nbb: \xff", "f.yaml:2:5: the file is not UTF-8 text"),
        (b"\x80", "f.yaml:1:1: the file is not UTF-8 text"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str | bytes, says: str) -> None:
    assert any(problem.startswith(says) or says in problem for problem in problems(text))


def test_all_problems_up_to_a_syntax_error_are_told_at_once() -> None:
    found = problems("a: 1\na: 2\nb: .inf\nc: [1")
    assert [line.split(": ")[0] for line in found] == ["f.yaml:2:1", "f.yaml:3:4", "f.yaml:4:6"]


def test_a_byte_order_mark_does_not_matter() -> None:
    assert data(b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_an_alias_is_the_value_of_its_anchor() -> None:
    assert data("a: &x [1, 2]\nb: *x\nc: {d: *x}") == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}


def test_the_limits_hold_exactly() -> None:
    assert data("a: &x 1\nb: [" + ", ".join(["*x"] * 64) + "]")["b"] == [1] * 64
    assert "more than 64 aliases" in problems("a: &x 1\nb: [" + ", ".join(["*x"] * 65) + "]")[0]
    assert data("[" * 64 + "]" * 64) is not None
    assert "more than 64 levels" in problems("[" * 65 + "]" * 65)[0]
    assert "more than 64 levels" in problems("- " * 5000)[0]
    assert "a key must be plain text" in problems("? " * 5000)[0]
    assert len(data("[" + "1," * 99_999 + "]")) == 99_999
    assert "more than 100,000 values" in problems("[" + "1," * 100_000 + "]")[0]
    assert "larger than 1 MiB" in problems("#" * (2**20 + 1))[0]


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 6)}]" for i in range(1, 10)]
    (found,) = problems("\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x, x]", *lines]))
    assert "more than 100,000 values" in found


def test_paths_are_written_as_the_user_would_and_not_endlessly() -> None:
    assert dotted(("a", "b", 0, "c")) == "a.b[0].c"
    assert dotted(("x" * 1000, "y")) == "x" * 60 + "….y"
    assert dotted(()) == ""
