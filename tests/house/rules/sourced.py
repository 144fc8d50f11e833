"""H7: no figure about hardware, software or a model without its source and its kind."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from moesim import units

KINDS = ("datasheet", "measured", "fitted", "assumed")
CATALOGUE = "moesim/model/catalogue"
_PROSE = ("source", "note", "name", "title", "description")


def violations(root: Path) -> list[str]:
    """Return figures without source or kind, quantities that stand alone, unsourced models."""
    found = []
    for folder, check in (("hwprofiles", _bare), (CATALOGUE, _models)):
        for path in sorted((root / folder).rglob("*.yaml")):
            data, error = _load(path, path.stat().st_mtime_ns)
            problems = [error] if error else [*_figures(data), *check(data)]
            found += [f"{path.relative_to(root).as_posix()}: {what}" for what in problems]
    return found


@cache
def _load(path: Path, stamp: int) -> tuple[Any, str]:
    del stamp  # part of the cache key: a changed file is read again
    try:
        return YAML(typ="safe").load(path), ""
    except YAMLError as error:
        return None, f"not valid YAML: {error}"


def _nodes(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path or "(top)", data
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _nodes(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _nodes(value, f"{path}[{index}]")


def _figures(data: Any) -> Iterator[str]:
    for path, node in _nodes(data):
        if isinstance(node, dict) and "value" in node:
            if not _text(node.get("source")):
                yield f"{path} has no source"
            if node.get("kind") not in KINDS:
                yield f"{path} has kind {node.get('kind')!r}, not one of {', '.join(KINDS)}"


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _bare(data: Any, path: str = "", sourced: bool = False) -> Iterator[str]:
    """Yield the quantities that stand in no mapping (nor inside one) with source and kind."""
    if isinstance(data, dict):
        sourced = sourced or ("source" in data and "kind" in data)
        for key, value in data.items():
            if key not in _PROSE:
                yield from _bare(value, f"{path}.{key}" if path else str(key), sourced)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _bare(value, f"{path}[{index}]", sourced)
    elif isinstance(data, str) and not sourced and _is_quantity(data):
        yield f"{path} is '{data}' without source and kind"


def _is_quantity(text: str) -> bool:
    for dimension in units.DIMENSIONS:
        try:
            units.parse(text, dimension)
        except ValueError:
            continue
        return True
    return False


def _models(data: Any) -> Iterator[str]:
    """One model per file with `source` at its top, or several under their names."""
    if isinstance(data, dict) and _text(data.get("source")):
        return
    several = isinstance(data, dict) and all(isinstance(value, dict) for value in data.values())
    if not several or not data:
        yield "the model has no source"
        return
    for name, model in data.items():
        if not _text(model.get("source")):
            yield f"the model {name} has no source"
