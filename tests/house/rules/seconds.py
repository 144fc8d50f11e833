"""H4: no seconds computed in model, moe and hardware; neither FLOP nor bytes seen in sim."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.source import dotted, functions, modules, within

COUNTING = ("moesim.model", "moesim.moe", "moesim.hardware")
_RATE = ("_bytes_per_s", "_flop_per_s", "_tokens_per_s")
_WORK = re.compile(r"(?:^|_)(?:flops?|bytes?)(?:_|$)", re.IGNORECASE)


def violations(root: Path) -> list[str]:
    """Return functions that give seconds, and quotients or products called seconds."""
    found = []
    for module in modules(root):
        if not within(module.name, *COUNTING):
            continue
        for name, function in functions(module):
            if _is_seconds(function.name):
                found.append(f"{module.path}:{function.lineno}: {name} gives seconds: use cost/")
        for name, value in _named_values(module.tree):
            if _is_seconds(name) and _is_computed(value):
                found.append(f"{module.path}:{value.lineno}: {name} is computed here: use cost/")
    return found


def _is_seconds(name: str) -> bool:
    return name.endswith("_s") and not f"_{name}".endswith(_RATE)


def _is_computed(value: ast.expr) -> bool:
    return isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Div, ast.Mult))


def _named_values(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg:
            yield node.arg, node.value
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield dotted(target).split(".")[-1], node.value
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
            yield dotted(node.target).split(".")[-1], node.value


def work_violations(root: Path) -> list[str]:
    """Return names in sim that speak of FLOP or bytes."""
    found = []
    for module in modules(root):
        if within(module.name, "moesim.sim"):
            names = {name for node in ast.walk(module.tree) for name in _identifiers(node)}
            found += [
                f"{module.path}:{line}: '{name}': sim knows seconds and tokens only"
                for name, line in sorted(names)
                if _WORK.search(name)
            ]
    return found


def _identifiers(node: ast.AST) -> Iterator[tuple[str, int]]:
    for field in ("id", "attr", "arg", "name", "asname"):
        name = getattr(node, field, None)
        if isinstance(name, str):
            for part in name.split("."):
                yield part, getattr(node, "lineno", 0)
