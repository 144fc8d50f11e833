"""The schema for editors is draft-07, takes every shipped file and refuses misspelt keys."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from moesim.errors import ScenarioError
from moesim.spec.json_schema import KINDS, json_schema, schema_text
from moesim.spec.shipped import shipped

CATALOGUE = Path(__file__).resolve().parents[3] / "moesim" / "model" / "catalogue"
FOLDERS = {
    "scenario": shipped("scenarios"),
    "serving": shipped("scenarios"),
    "model": CATALOGUE,
    "accelerator": shipped("hwprofiles") / "accelerators",
    "cluster": shipped("hwprofiles") / "clusters",
    "software": shipped("hwprofiles") / "software",
}
NOT_DRAFT_07 = {"$defs", "prefixItems", "discriminator", "unevaluatedProperties", "$anchor"}


def errors(kind: str, data: Any) -> list[str]:
    return [error.message for error in Draft7Validator(json_schema(kind)).iter_errors(data)]


def files_of(kind: str) -> list[Path]:
    """The shipped files of a kind; serving scenarios lie beside those of training."""
    found = sorted(FOLDERS[kind].glob("*.yaml"))
    if kind not in ("scenario", "serving"):
        return found
    return [file for file in found if file.name.startswith("serving-") == (kind == "serving")]


def read(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def keywords(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            if key not in ("properties", "definitions"):
                yield from keywords(value)
            else:
                for inner in value.values():
                    yield from keywords(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from keywords(inner)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_valid_draft_07(kind: str) -> None:
    schema = json_schema(kind)
    Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert not NOT_DRAFT_07 & set(keywords(schema))


@pytest.mark.parametrize("kind", KINDS)
def test_every_reference_leads_somewhere(kind: str) -> None:
    text = schema_text(kind)
    names = set(json_schema(kind)["definitions"])
    used = {part.split('"')[0] for part in text.split("#/definitions/")[1:]}
    assert used <= names
    assert "#/$defs" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_every_shipped_file_is_valid(kind: str) -> None:
    files = files_of(kind)
    assert files
    assert {path.name: errors(kind, read(path)) for path in files if errors(kind, read(path))} == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_key_is_refused(kind: str) -> None:
    data = read(files_of(kind)[0])
    assert any("misspelt" in error for error in errors(kind, {**data, "misspelt": 1}))


@pytest.mark.parametrize(
    "change",
    [
        {"cluster": {"profile": "dgx-h100", "devices": 64, "device": 3}},
        {"cluster": {"profile": "dgx-h100"}},
        {"cluster": {"profile": "dgx-h100", "devices": 0}},
        {"cluster": {"profile": "dgx-h100", "devices": 64, "price": "3 EUR/h"}},
        {"cluster": {"profile": "dgx-h100", "devices": 64, "price": 3}},
        {"parallel": {"schedule": "1f2b"}},
        {"training": {"sequence_length": 8, "global_batch": 8, "recompute": "all"}},
        {"training": {"sequence_length": 8}},
        {"baseline": {"equal": "size"}},
        {"baseline": [{"equal": "flop", "modl": "x"}]},
        {"routing": {"capacity": {}}},
        {"extends": 5},
    ],
)
def test_mistakes_below_are_refused_too(change: dict[str, Any]) -> None:
    good = {
        "model": "mixtral-8x7b",
        "cluster": {"profile": "dgx-h100", "devices": 64},
        "training": {"sequence_length": 8, "global_batch": 8},
    }
    assert errors("scenario", good) == []
    assert errors("scenario", {**good, **change}) != []


@pytest.mark.parametrize(
    "data",
    [
        {"extends": "base.yaml"},
        {"extends": "base.yaml", "cluster": {"devices": 128}},
        {"extends": "base.yaml", "training": {"global_batch": 512}, "baseline": {"equal": "flop"}},
    ],
)
def test_with_extends_no_key_is_required(data: dict[str, Any]) -> None:
    assert errors("scenario", data) == []
    assert errors("scenario", {key: data[key] for key in data if key != "extends"}) != []


def test_every_key_is_described() -> None:
    def undescribed(node: Any, path: str) -> Iterator[str]:
        for name, inner in node.get("properties", {}).items():
            refers = any("$ref" in part for part in inner.get("allOf", ()))
            if not inner.get("description") and not refers:
                yield f"{path}.{name}"

    for kind in KINDS:
        schema = json_schema(kind)
        parts = {kind: schema, **schema["definitions"]}
        assert [key for name, part in parts.items() for key in undescribed(part, name)] == []


def test_descriptions_are_the_docstrings() -> None:
    schema = json_schema("scenario")
    assert schema["description"] == "What to simulate."
    tp = schema["definitions"]["ParallelSpec"]["properties"]["tp"]
    assert tp["description"].startswith("Tensor parallel: ")
    assert (tp["type"], tp["minimum"], tp["default"]) == ("integer", 1, 1)


def test_the_text_is_json_and_an_unknown_kind_an_error() -> None:
    assert json.loads(schema_text("scenario")) == json_schema("scenario")
    assert schema_text("model").endswith("}\n")
    with pytest.raises(ScenarioError, match=r"unknown kind 'clster'\. Did you mean 'cluster'"):
        schema_text("clster")
