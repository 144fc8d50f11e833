"""Nothing that runs what a file says: no pickle, eval, exec, unsafe YAML, unsafe torch.load."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.house.source import Module, dotted, imports, modules, uses

PACKAGES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib")
NAMES = (
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
)
METHODS = ("read_pickle", "to_pickle")


def violations(root: Path) -> list[str]:
    """Return every use of something that could run code out of data."""
    return [
        f"{module.path}:{line}: {what}" for module in modules(root) for line, what in _found(module)
    ]


def _found(module: Module) -> Iterator[tuple[int, str]]:
    for item in imports(module):
        if item.target.split(".")[0] in PACKAGES:
            yield item.line, f"imports {item.target}"
    for name, line, _ in uses(module):
        if name in NAMES:
            yield line, name
    torch_loads = {id(node) for name, _, node in uses(module) if name == "torch.load"}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield from ((node.lineno, what) for what in _call(node, id(node.func) in torch_loads))


def _call(node: ast.Call, is_torch_load: bool) -> Iterator[str]:
    flags = {key.arg: getattr(key.value, "value", None) for key in node.keywords}
    if is_torch_load and flags.get("weights_only") is not True:
        yield "torch.load without weights_only=True"
    for flag in ("allow_pickle", "shell"):
        if flags.get(flag, False) is not False:
            yield f"{flag} must stay off"
    if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        yield node.func.attr
    if dotted(node.func).split(".")[-1] == "YAML" and flags.get("typ") == "unsafe":
        yield "YAML(typ='unsafe')"
