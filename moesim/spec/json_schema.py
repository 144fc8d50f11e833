"""JSON Schema draft-07 of everything a user writes, for completion and checks in editors.

Editors read draft-07; pydantic writes 2020-12, so keywords are renamed here.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from moesim.errors import Problem, ScenarioError, nearest
from moesim.spec.base import Spec
from moesim.spec.hardware import AcceleratorSpec, ClusterSpec
from moesim.spec.model import ModelSpec
from moesim.spec.scenario import Scenario
from moesim.spec.serving.scenario import ServingScenario
from moesim.spec.software import SoftwareSpec

KINDS: Mapping[str, type[Spec]] = MappingProxyType(
    {
        "scenario": Scenario,
        "serving": ServingScenario,
        "model": ModelSpec,
        "accelerator": AcceleratorSpec,
        "cluster": ClusterSpec,
        "software": SoftwareSpec,
    }
)
"""What a YAML file can be, by the name that `moesim schema --kind` takes."""

EXTENDABLE = ("scenario", "serving")
"""Kinds that may be written as changes of another one."""

Json = dict[str, Any]

EXTENDS: Mapping[str, str] = MappingProxyType(
    {
        "type": "string",
        "description": "A shipped scenario, or the path of one (ending in .yaml), that this one "
        "changes; keys here win.",
    }
)
"""The key of a scenario that only loading sees."""

_DEFINITIONS = "#/definitions/"


def schema_text(kind: str) -> str:
    """Return the schema of `kind` as indented JSON; ScenarioError for an unknown kind."""
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise ScenarioError(
            [Problem("", f"unknown kind '{kind}'.{nearest(kind, KINDS)} Known: {known}.")]
        )
    return json.dumps(json_schema(kind), indent=2, ensure_ascii=False) + "\n"


def json_schema(kind: str) -> Json:
    """Return the draft-07 schema of one of KINDS, for editors."""
    schema = plain_schema(kind)
    return _extendable(schema) if kind in EXTENDABLE else schema


def plain_schema(kind: str) -> Json:
    """Return the draft-07 schema of one of KINDS, as if no scenario extended another."""
    raw = KINDS[kind].model_json_schema(by_alias=False)
    definitions = raw.pop("$defs", {})
    names = _short_names(definitions)
    schema: Json = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"moesim {kind}",
        **_draft_07(raw, names),
        "definitions": {names[name]: _draft_07(one, names) for name, one in definitions.items()},
    }
    return schema


def _short_names(definitions: Json) -> dict[str, str]:
    """Number the sourced figures: their own names spell out the whole type."""
    names, figures = {}, 0
    for name in definitions:
        figures += name.startswith("Figure_")
        names[name] = f"Figure{figures}" if name.startswith("Figure_") else name
    return names


def _draft_07(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_draft_07(one, names) for one in node]
    if not isinstance(node, dict):
        return node
    result: Json = {}
    for key, value in node.items():
        if key == "properties":
            result[key] = {name: _draft_07(one, names) for name, one in value.items()}
        elif key == "$ref":
            result[key] = _DEFINITIONS + names[value.removeprefix("#/$defs/")]
        elif key == "prefixItems":
            result["items"] = _draft_07(value, names)
        elif key in ("default", "const", "enum", "examples"):
            result[key] = value
        elif key not in ("title", "discriminator"):
            result[key] = _draft_07(value, names)
    if "$ref" in result and len(result) > 1:  # draft-07 ignores what stands beside $ref
        result["allOf"] = [{"$ref": result.pop("$ref")}]
    if isinstance(result.get("description"), str):
        result["description"] = " ".join(result["description"].split())
    return result


def _extendable(schema: Json) -> Json:
    """Add `extends`: with it, required keys may stand in the other scenario."""
    needs = _needs(schema, schema["definitions"])
    definitions = {name: _without_required(one) for name, one in schema["definitions"].items()}
    return {
        **_without_required(schema),
        "properties": {"extends": dict(EXTENDS), **schema["properties"]},
        "if": {"not": {"required": ["extends"]}},
        "then": needs,
        "definitions": definitions,
    }


def _without_required(schema: Json) -> Json:
    return {key: value for key, value in schema.items() if key != "required"}


def _needs(schema: Json, definitions: Json) -> Json:
    """Return a schema that only says which keys are required, here and below."""
    below = {}
    for name, one in schema.get("properties", {}).items():
        for part in (one, *one.get("anyOf", ())):
            owner = target(part)
            if owner and (needs := _needs(definitions[owner], definitions)):
                below[name] = needs
    result: Json = {}
    if schema.get("required"):
        result["required"] = schema["required"]
    if below:
        result["properties"] = below
    return result


def target(node: Json) -> str:
    """Return the name of the definition that `node` refers to, or an empty text."""
    parts = (node, *node.get("allOf", ()))
    return next((str(p["$ref"]).removeprefix(_DEFINITIONS) for p in parts if "$ref" in p), "")
