"""H6: only the command line and the reports speak, configure logging or end the process."""

import ast
from pathlib import Path

from tests.house.source import modules, uses, within

SPEAKERS = ("moesim.__main__", "moesim.cli", "moesim.study.report")
FORBIDDEN = (
    "print",
    "input",
    "exit",
    "quit",
    "SystemExit",
    "sys.exit",
    "os._exit",
    "sys.stdout",
    "sys.stderr",
    "logging.basicConfig",
    "logging.config",
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.disable",
)
_METHODS = ("addHandler", "removeHandler", "setLevel")


def violations(root: Path) -> list[str]:
    """Return output, exits and logging configuration outside the places for them."""
    found = []
    for module in modules(root):
        if within(module.name, *SPEAKERS):
            continue
        found += [
            f"{module.path}:{line}: {name} outside cli/ and study/report"
            for name, line, _ in uses(module)
            if name in FORBIDDEN
        ]
        found += [
            f"{module.path}:{node.lineno}: logging is configured in cli/ only"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute) and node.attr in _METHODS
        ]
    return found
