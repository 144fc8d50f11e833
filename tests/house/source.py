"""Reads the modules of a tree as syntax, without importing them: what every house rule needs."""

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Function = ast.FunctionDef | ast.AsyncFunctionDef
Place = Literal["module", "function", "typing"]
"""Where an import stands: it runs at import time, only when called, or never (TYPE_CHECKING)."""


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """One Python file: its dotted name, its path below the root, its syntax, its length."""

    name: str
    path: str
    tree: ast.Module
    lines: int
    is_package: bool


@dataclass(frozen=True, slots=True)
class Import:
    """One imported thing: `import target`, or `from target import name`."""

    target: str
    name: str
    line: int
    place: Place

    @property
    def full(self) -> str:
        """The dotted name of what is imported."""
        return f"{self.target}.{self.name}" if self.name else self.target


def python_files(root: Path, folder: str) -> list[Path]:
    """Return the Python files below `folder`, sorted, without caches."""
    return sorted(path for path in (root / folder).rglob("*.py") if "__pycache__" not in path.parts)


def modules(root: Path, folder: str = "moesim") -> list[Module]:
    """Return every module below `folder` that parses (unreadable files: see rules.walls)."""
    found = (_read(root, path, path.stat().st_mtime_ns) for path in python_files(root, folder))
    return [module for module in found if module is not None]


@cache
def _read(root: Path, path: Path, stamp: int) -> Module | None:
    del stamp  # part of the cache key: a changed file is read again
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    relative = path.relative_to(root)
    parts = relative.with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    return Module(name, relative.as_posix(), tree, text.count("\n"), is_package)


def within(name: str, *packages: str) -> bool:
    """Return whether the module `name` is one of `packages` or inside one of them."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def functions(module: Module) -> Iterator[tuple[str, Function]]:
    """Yield every function of the module, nested ones included, with its qualified name."""
    for name, node in definitions(module):
        if not isinstance(node, ast.ClassDef):
            yield name, node


def definitions(module: Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Yield every function and class of the module with its qualified name."""
    yield from _definitions(module.tree, "")


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inner = f"{prefix}{child.name}."
            yield f"{prefix}{child.name}", child
        yield from _definitions(child, inner)


@cache
def imports(module: Module) -> tuple[Import, ...]:
    """Return every import of the module, lazy ones and `import_module("…")` included."""
    return tuple(_imports(module, module.tree, "module"))


def _imports(module: Module, node: ast.AST, place: Place) -> Iterator[Import]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from _statement(module, node, place)
    elif isinstance(node, ast.Call):
        yield from _call(node, place)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        place = "function"
    typing_only = node.body if isinstance(node, ast.If) and _is_typing(node.test) else []
    for child in ast.iter_child_nodes(node):
        yield from _imports(module, child, "typing" if child in typing_only else place)


def _is_typing(test: ast.expr) -> bool:
    return dotted(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _statement(module: Module, node: ast.Import | ast.ImportFrom, place: Place) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, "", node.lineno, place)
        return
    target = node.module or ""
    if node.level:
        parts = module.name.split(".")
        keep = len(parts) - node.level + module.is_package
        target = ".".join([*parts[:keep], *([node.module] if node.module else [])])
    for alias in node.names:
        yield Import(target, alias.name, node.lineno, place)


def _call(node: ast.Call, place: Place) -> Iterator[Import]:
    if dotted(node.func).split(".")[-1] in ("import_module", "__import__") and node.args:
        name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            yield Import(name.value, "", node.lineno, place)


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` for such an expression, an empty text for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


@cache
def uses(module: Module) -> tuple[tuple[str, int, ast.AST], ...]:
    """Return (full dotted name, line, node) of each use of something imported or built in.

    `np.random.rand` becomes `numpy.random.rand`, whatever the import called it.
    """
    origins = _origins(module)
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            first, _, rest = dotted(node).partition(".")
            if first in origins:
                full = f"{origins[first]}.{rest}" if rest else origins[first]
                found.append((full, node.lineno, node))
    return tuple(found)


def _origins(module: Module) -> dict[str, str]:
    origins = {name: name for name in set(dir(builtins)) - _bound(module)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                origins[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                origins[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return origins


def _bound(module: Module) -> set[str]:
    """Return the names that the module binds itself: they hide built-in ones."""
    names = {name.split(".")[-1] for name, _ in definitions(module)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names
