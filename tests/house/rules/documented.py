"""Docstrings and annotations: every module, every public class, function and method."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.house.source import Function, Module, definitions, functions, modules


def violations(root: Path) -> list[str]:
    """Return modules and public names without a docstring."""
    found = []
    for module in modules(root):
        if not ast.get_docstring(module.tree):
            found.append(f"{module.path}: no module docstring")
        found += [
            f"{module.path}:{node.lineno}: {name} has no docstring"
            for name, node in _public(module.tree, "")
            if not ast.get_docstring(node) and not _repeats(node)
        ]
    return found


def _public(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if child.name.startswith("_"):
                continue
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from _public(child, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            yield from _public(child, prefix)


def _repeats(node: Function | ast.ClassDef) -> bool:
    """Overloads and setters stand beside the documented one."""
    names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(names & {"overload", "setter", "deleter", "override"})


def annotation_violations(root: Path) -> list[str]:
    """Return functions whose arguments or result are not annotated."""
    return [
        f"{module.path}:{function.lineno}: {name}: no annotation of {missing}"
        for module in modules(root)
        for methods in [_methods(module)]
        for name, function in functions(module)
        for missing in _unannotated(function, function in methods)
    ]


def _unannotated(function: Function, is_method: bool) -> list[str]:
    given = function.args
    arguments = [*given.posonlyargs, *given.args]
    if is_method:
        arguments = arguments[1:]
    arguments += [*given.kwonlyargs, *(arg for arg in (given.vararg, given.kwarg) if arg)]
    missing = [argument.arg for argument in arguments if argument.annotation is None]
    return missing + (["the result"] if function.returns is None else [])


def _methods(module: Module) -> set[ast.stmt]:
    """Return the functions of the module whose first argument is self or cls."""
    return {
        child
        for _, node in definitions(module)
        if isinstance(node, ast.ClassDef)
        for child in node.body
        if "staticmethod" not in map(ast.unparse, getattr(child, "decorator_list", []))
    }
