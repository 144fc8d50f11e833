"""H2 and H3: which outside packages may be imported where, and which only inside functions."""

from pathlib import Path

from tests.house.source import imports, modules, within

HOMES = {
    "torch": ("moesim.calibrate",),
    "simpy": ("moesim.sim",),
    "pydantic": ("moesim.spec",),
    "pydantic_core": ("moesim.spec",),
    "ruamel": ("moesim.spec",),
    "yaml": ("moesim.spec",),
    "rich": ("moesim.study.report", "moesim.cli"),
    "typer": ("moesim.cli",),
    "click": ("moesim.cli",),
}

LAZY = ("torch", "pandas", "plotly", "dask", "distributed", "pyarrow", "scipy")
"""Slow to import, or not installed by default: only inside functions (or for TYPE_CHECKING)."""


def violations(root: Path) -> list[str]:
    """Return imports of an outside package outside its home."""
    found = []
    for module in modules(root):
        for item in imports(module):
            package = item.target.split(".")[0]
            if package in HOMES and not within(module.name, *HOMES[package]):
                home = " and ".join(HOMES[package])
                found.append(f"{module.path}:{item.line}: {package} belongs into {home}")
    return found


def lazy_violations(root: Path) -> list[str]:
    """Return imports at module level of what must be imported inside functions."""
    return [
        f"{module.path}:{item.line}: import {item.target} inside the function that needs it"
        for module in modules(root)
        for item in imports(module)
        if item.place == "module" and item.target.split(".")[0] in LAZY
    ]
