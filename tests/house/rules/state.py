"""H5: no module-level mutable state, no hidden counters, no bare randomness, no wall clock."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.source import Module, definitions, dotted, modules, uses, within

_CONSTANT = re.compile(r"_{0,2}[A-Z][A-Z0-9_]*$")
_CLASS = re.compile(r"_*[A-Z]\w*[a-z]\w*$")
_MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_MAKERS = {
    "list",
    "dict",
    "set",
    "bytearray",
    "collections.defaultdict",
    "collections.deque",
    "collections.Counter",
    "collections.OrderedDict",
}
_MUTATORS = {
    "append",
    "appendleft",
    "extend",
    "insert",
    "update",
    "add",
    "pop",
    "popitem",
    "clear",
    "remove",
    "discard",
    "setdefault",
    "sort",
    "reverse",
    "__setitem__",
    "__delitem__",
}


def violations(root: Path) -> list[str]:
    """Return `global` and `nonlocal`, mutable module or class state, and mutated constants."""
    return [
        f"{module.path}:{line}: {what}"
        for module in modules(root)
        for find in (_rebinding, _mutable_state, _mutations, _class_writes, _counters)
        for line, what in find(module)
    ]


def _rebinding(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            yield node.lineno, f"{type(node).__name__.lower()} {', '.join(node.names)}"


def _mutable_state(module: Module) -> Iterator[tuple[int, str]]:
    makers = {id(node) for name, _, node in uses(module) if name in _MAKERS}
    for name, value in _shared(module):
        made = isinstance(value, ast.Call) and id(value.func) in makers
        allowed = _CONSTANT.match(name) or (name.startswith("__") and name.endswith("__"))
        if (made or isinstance(value, _MUTABLE)) and not allowed:
            yield value.lineno, f"{name} is mutable state: make it a CONSTANT or a tuple"


def _shared(module: Module) -> Iterator[tuple[str, ast.expr]]:
    """Yield (name, value) of what is assigned in the body of the module or of a class."""
    yield from _assigned(module.tree)
    for _, node in definitions(module):
        if isinstance(node, ast.ClassDef):
            yield from _assigned(node)


def _assigned(owner: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    for statement in ast.iter_child_nodes(owner):
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                yield dotted(target), statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            yield dotted(statement.target), statement.value
        elif isinstance(statement, (ast.If, ast.Try, ast.With)):
            yield from _assigned(statement)


def _mutations(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        for name in _changed(node):
            if _CONSTANT.match(name.split(".")[-1]):
                yield getattr(node, "lineno", 0), f"changes the constant {name}"


def _changed(node: ast.AST) -> Iterator[str]:
    """Yield the names whose object this statement or call changes in place."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in _MUTATORS:
            yield dotted(node.func.value)
    elif isinstance(node, (ast.Assign, ast.Delete)):
        for target in node.targets:
            if isinstance(target, ast.Subscript):
                yield dotted(target.value)
    elif isinstance(node, ast.AugAssign):
        target = node.target
        yield dotted(target.value if isinstance(target, ast.Subscript) else target)


def _class_writes(module: Module) -> Iterator[tuple[int, str]]:
    classes = {name for name, node in definitions(module) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(module.tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Attribute) and _is_class(target.value, classes):
                yield target.lineno, f"writes class state: {ast.unparse(target)}"


def _is_class(node: ast.expr, classes: set[str]) -> bool:
    if isinstance(node, ast.Call):
        return dotted(node.func) == "type"
    last = dotted(node).split(".")[-1]
    return last in {"cls", "__class__"} | classes or bool(_CLASS.match(last))


def _counters(module: Module) -> Iterator[tuple[int, str]]:
    counts = {id(node) for name, _, node in uses(module) if name == "itertools.count"}
    for name, value in _shared(module):
        if any(id(node) in counts for node in ast.walk(value)):
            yield value.lineno, f"{name} is a counter shared by all"


def random_violations(root: Path) -> list[str]:
    """Return randomness that does not come from the named streams of moesim.rng."""
    found = []
    for module in modules(root):
        allowed = ("Generator", "BitGenerator", "SeedSequence")
        for name, line, _ in uses(module):
            base, _, last = name.rpartition(".")
            from_numpy = base == "numpy.random" and last not in allowed
            if (from_numpy and module.name != "moesim.rng") or within(name, "random", "secrets"):
                found.append(f"{module.path}:{line}: {name}: use moesim.rng.stream")
    return found


CLOCKS = {
    *(
        f"time.{name}{suffix}"
        for name in ("time", "perf_counter", "monotonic", "process_time", "thread_time")
        for suffix in ("", "_ns")
    ),
    *(f"time.{name}" for name in ("sleep", "localtime", "gmtime", "ctime", "strftime")),
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    "datetime.date.today",
}
CLOCK_READERS = ("moesim.__main__", "moesim.cli", "moesim.calibrate")


def clock_violations(root: Path) -> list[str]:
    """Return wall-clock reads outside the command line and calibration."""
    return [
        f"{module.path}:{line}: {name} outside cli/ and calibrate/"
        for module in modules(root)
        if not within(module.name, *CLOCK_READERS)
        for name, line, _ in uses(module)
        if name in CLOCKS
    ]
