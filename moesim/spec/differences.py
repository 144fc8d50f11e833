"""Two scenarios key by key: what differs once defaults are in, and scenarios between them."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from moesim.spec.scenario import Scenario
from moesim.spec.validate import build
from moesim.spec.yaml_text import Document

_LABELS = ("name", "description")
_PATHS = (("model",), ("software",), ("cluster", "profile"), ("routing", "load", "trace"))
"""Keys that may name a file, looked for from the scenario's own folder."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that differs, with what stands in each scenario; None: nothing, not even a default."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two scenarios and the keys in which they differ, in the order of the schema."""

    before: dict[str, Any]
    """What was written in the first, every path seen from here, every degree said."""
    after: dict[str, Any]
    differences: tuple[Difference, ...]


def pair(before: Scenario, after: Scenario) -> Pair:
    """Return in what `after` differs from `before`, defaults included, labels left out."""
    raw = (_settled(before), _settled(after))
    values = [_values(build(Scenario, Document(one))) for one in raw]
    keys = _whole(list(dict.fromkeys(key for one in values for key in one)), values)
    found = [Difference(key, values[0].get(key), values[1].get(key)) for key in keys]
    changed = tuple(one for one in found if one.before != one.after)
    return Pair(before=raw[0], after=raw[1], differences=changed)


def between(both: Pair, keys: frozenset[str]) -> Scenario:
    """Return the first scenario with `keys` as in the second.

    Raises ScenarioError where they contradict the rest.
    """
    data = deepcopy(both.before)
    for key in keys:
        _copy(key.split("."), both.after, data)
    return build(Scenario, Document(data))


def _copy(path: list[str], source: dict[str, Any], target: dict[str, Any]) -> None:
    """Set the key at `path` as in `source`; where that says nothing, leave it out."""
    *outer, last = path
    found: Any = source
    for part in outer:
        found = found.get(part) if isinstance(found, dict) else None
        inner = target.get(part)
        if not isinstance(inner, dict):
            inner = target[part] = {}
        target = inner
    if isinstance(found, dict) and last in found:
        target[last] = deepcopy(found[last])
    else:
        target.pop(last, None)


def _settled(scenario: Scenario) -> dict[str, Any]:
    """Return what was written, with paths from here and degrees that follow from others said."""
    data = scenario.written()
    for path in _PATHS:
        _place(data, path, scenario)
    for label in _LABELS:
        data.pop(label, None)
    data["parallel"] = {**(data.get("parallel") or {}), "etp": scenario.parallel.expert_tp}
    if scenario.training.precision == "fp8" and scenario.training.fp8_recipe is None:
        data["training"]["fp8_recipe"] = "tensorwise"
    return data


def _place(data: Any, path: tuple[str, ...], scenario: Scenario) -> None:
    *outer, last = path
    for part in outer:
        data = data.get(part) if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(data.get(last), str):
        data[last] = scenario.path_of(data[last])


def _values(scenario: Scenario) -> dict[str, Any]:
    """Return all values by dotted key; a section that is left out is None under its own name."""
    found: dict[str, Any] = {}

    def add(tree: dict[str, Any], start: str) -> None:
        for name, value in tree.items():
            if isinstance(value, dict):
                add(value, f"{start}{name}.")
            elif f"{start}{name}" not in _LABELS:
                found[f"{start}{name}"] = value

    add(scenario.model_dump(), "")
    return found


def _whole(keys: list[str], values: list[dict[str, Any]]) -> list[str]:
    """Name a section that only one scenario has by itself instead of all the keys below it."""
    alone = [
        key
        for key in keys
        if any(other.startswith(f"{key}.") for other in keys) and any(key in one for one in values)
    ]
    for one in values:
        for key in alone:
            other = {name: value for name, value in one.items() if name.startswith(f"{key}.")}
            if other:
                one[key] = {name.removeprefix(f"{key}."): value for name, value in other.items()
                            if value not in (None, ())}  # fmt: skip
    return [key for key in keys if not any(key.startswith(f"{one}.") for one in alone)]
