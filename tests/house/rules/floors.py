"""H1: imports go down the floors only, siblings are blind to each other, nothing goes in circles.

Lazy imports and TYPE_CHECKING count like any other.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.house.source import Import, Module, imports, modules, within

FLOORS = (
    ("moesim.__main__",),
    ("moesim.cli",),
    ("moesim.study",),
    ("moesim.sim", "moesim.calibrate"),
    ("moesim.cost",),
    ("moesim.model", "moesim.moe", "moesim.hardware"),
    ("moesim.spec",),
    ("moesim.rng", "moesim.units", "moesim.errors", "moesim.version"),
)
"""From the top to the ground. The package `moesim` itself is the facade: it may import any."""

_FACADE_USERS = ("moesim.__main__", "moesim.cli")


def violations(root: Path) -> list[str]:
    """Return every import that goes up or sideways, and modules that stand on no floor."""
    known = {module.name for module in modules(root)}
    found = []
    for module in modules(root):
        if module.name != "moesim" and floor_of(module.name) is None:
            found.append(f"{module.path}: {module.name} stands on no floor")
        for target, item in internal(module, known):
            if problem := _wrong(module.name, target):
                found.append(f"{module.path}:{item.line}: imports {target}: {problem}")
    return found


def internal(module: Module, known: set[str]) -> Iterator[tuple[str, Import]]:
    """Yield the modules of moesim that `module` imports."""
    for item in imports(module):
        if within(item.target, "moesim"):
            yield (item.full if item.full in known else item.target), item


def floor_of(name: str) -> tuple[int, str] | None:
    """Return (floor number from the top, package) of a module."""
    for number, packages in enumerate(FLOORS):
        for package in packages:
            if within(name, package):
                return number, package
    return None


def _wrong(importer: str, target: str) -> str:
    if importer == "moesim":
        return ""
    if target == "moesim":
        return "" if within(importer, *_FACADE_USERS) else "the facade stands above every floor"
    here, there = floor_of(importer), floor_of(target)
    if here is None or there is None or here[1] == there[1]:
        return ""
    if there[0] < here[0]:
        return "upwards"
    return "sideways" if there[0] == here[0] else ""


def cycle_violations(root: Path) -> list[str]:
    """Return the import cycles among the modules, module-level and lazy imports alike."""
    known = {module.name for module in modules(root)}
    graph = {
        module.name: sorted({target for target, _ in internal(module, known)} & known)
        for module in modules(root)
    }
    done: set[str] = set()
    found: list[str] = []
    for name in sorted(graph):
        _search(graph, [name], done, found)
    return found


def _search(graph: dict[str, list[str]], path: list[str], done: set[str], out: list[str]) -> None:
    if path[-1] in done:
        return
    for target in graph[path[-1]]:
        if target in path:
            out.append("import cycle: " + " -> ".join([*path[path.index(target) :], target]))
        else:
            _search(graph, [*path, target], done, out)
    done.add(path[-1])


def contract_violations(root: Path) -> list[str]:
    """Return what is missing in pyproject's import contract, measured against FLOORS."""
    with (root / "pyproject.toml").open("rb") as handle:
        linter = tomllib.load(handle).get("tool", {}).get("importlinter", {})
    if linter.get("root_package") != "moesim":
        return ["pyproject.toml: tool.importlinter lacks root_package = 'moesim'"]
    if linter.get("exclude_type_checking_imports"):
        return ["pyproject.toml: the import contract must see TYPE_CHECKING imports"]
    layers = [c for c in linter.get("contracts", []) if c.get("type") == "layers"]
    expected = [set(packages) for packages in FLOORS if packages != ("moesim.__main__",)]
    if not any(_floors_in(contract) == expected for contract in layers):
        return ["pyproject.toml: no layers contract without exceptions equals rules/floors.py"]
    return []


def _floors_in(contract: dict[str, Any]) -> list[set[str]]:
    if contract.get("ignore_imports"):
        return []
    rows = (row.replace("(", "").replace(")", "") for row in contract.get("layers", []))
    return [{part.strip() for part in row.split("|")} for row in rows]
