"""The walls: a file, a function and a list of arguments have a greatest size."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.house.source import Function, functions, modules, python_files

MAX_FILE_LINES = 500
MAX_BODY_LINES = 60
MAX_ARGUMENTS = 6

EXCEPTIONS: Mapping[str, str] = {
    "moesim/cli/run.py:run": "typer makes each argument of a command one option of the user's",
}
"""What may pass a wall, as "path" or "path:function", and the reason."""


def violations(root: Path) -> list[str]:
    """Return every file, function and argument list beyond a wall, and files that do not parse."""
    return [f"{where}: {what}" for where, what in beyond(root) if where not in EXCEPTIONS]


def beyond(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (place, problem) for all that passes a wall, listed exceptions included."""
    for folder in ("moesim", "tests"):
        parsed = {module.path: module for module in modules(root, folder)}
        for path in python_files(root, folder):
            name = path.relative_to(root).as_posix()
            if name not in parsed:
                yield name, "does not parse"
            elif parsed[name].lines > MAX_FILE_LINES:
                yield name, f"{parsed[name].lines} lines, the wall is {MAX_FILE_LINES}"
    for module in modules(root):
        for function_name, function in functions(module):
            where = f"{module.path}:{function_name}"
            if (lines := body_lines(function)) > MAX_BODY_LINES:
                yield where, f"a body of {lines} lines, the wall is {MAX_BODY_LINES}"
            if (count := len(arguments(function))) > MAX_ARGUMENTS:
                yield where, f"{count} arguments, the wall is {MAX_ARGUMENTS}: make a record"


def body_lines(function: Function) -> int:
    """Return the lines of the body, its docstring left out."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def arguments(function: Function) -> list[str]:
    """Return the names of the arguments, keyword-only ones included, self and cls left out."""
    given = function.args
    names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names
