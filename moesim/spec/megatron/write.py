"""Writes what was imported as commented YAML: a scenario, and a model of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from moesim.spec.megatron.reading import Entry, yaml_value


def scenario_text(entries: Mapping[str, Entry], head: Sequence[str]) -> str:
    """Return the keys of a scenario as YAML, each with the argument it comes from."""
    return (
        "\n".join([*(f"# {line}".rstrip() for line in head), "", *_lines(_nested(entries))]) + "\n"
    )


def model_text(entries: Mapping[str, Entry], name: str) -> str:
    """Return the keys of a model as YAML."""
    own = {
        "name": Entry(value=name, why=""),
        "source": Entry(value="arguments of Megatron-LM", why=""),
    }
    below = {key.removeprefix("model."): entry for key, entry in entries.items()}
    return "\n".join(_lines(_nested(own | below))) + "\n"


def plain(entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Return dotted keys as nested mappings of bare values."""
    return _values(_nested(entries))


def _values(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: one.value if isinstance(one, Entry) else _values(one) for key, one in tree.items()}


def _nested(entries: Mapping[str, Entry]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, entry in entries.items():
        *outer, last = key.split(".")
        place = tree
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = entry
    return tree


def _lines(tree: Mapping[str, Any], depth: int = 0) -> list[str]:
    found: list[str] = []
    scalars_first = sorted(tree.items(), key=lambda item: depth and not isinstance(item[1], Entry))
    for key, one in scalars_first:
        start = "  " * depth
        if not isinstance(one, Entry):
            if depth == 0:
                found.append("")
            found += [f"{start}{key}:", *_lines(one, depth + 1)]
            continue
        line = f"{start}{key}: {yaml_value(one.value)}"
        if one.why and len(line) < 40:
            line = f"{line:<38}  # {one.why}"
        elif one.why:
            found.append(f"{start}# {one.why}")
        found.append(line)
    return found
