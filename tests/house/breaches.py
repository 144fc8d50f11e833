"""Deliberate breaches of every house rule: what is written into a clean tree, and the verdict."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Breach:
    """Files that break `rule`, and a piece of what the rule must say about them."""

    rule: str
    says: str
    files: tuple[tuple[str, str], ...]


def _one(rule: str, says: str, path: str, text: str) -> Breach:
    return Breach(rule, says, ((path, text),))


def _python(rule: str, path: str, *rows: tuple[str, str]) -> list[Breach]:
    """One breach per row (what the rule says, the broken text), all written to `path`."""
    return [_one(rule, says, path, text) for says, text in rows]


_SEVEN = "def f(a, b, c, *, d, e, g, h): ...\n"
_LONG = "def f() -> None:\n" + "    g()\n" * 61
_CHIP = "hwprofiles/accelerators/x.yaml"
_MODEL = "moesim/model/catalogue/x.yaml"
# Put together from pieces: the scan of tracked files reads this file too.
_MACHINE = "/".join(("", "home", "someone", "x"))
_HOST = ".".join(("pypi", "org"))

_WALLS = [
    *_python(
        "walls",
        "moesim/cost/x.py",
        ("501 lines", "x = 1\n" * 501),
        ("61 lines", _LONG),
        ("7 arguments", _SEVEN),
        ("7 arguments", f"class A:\n    {_SEVEN.replace('(a', '(self, a')}"),
        ("does not parse", "def f(:\n"),
    ),
    _one("walls", "501 lines", "tests/unit/test_x.py", "x = 1\n" * 501),
]

_FLOORS = [
    *_python(
        "H1-floors",
        "moesim/cost/x.py",
        ("upwards", "import moesim.sim\n"),
        ("upwards", "from moesim.study import run\n"),
        ("upwards", "from ..sim import x\n"),
        ("upwards", "def f() -> None:\n    import moesim.sim\n"),
        ("upwards", "if TYPE_CHECKING:\n    from moesim.sim import Clock\n"),
        ("upwards", "import importlib\nimportlib.import_module('moesim.sim')\n"),
        ("the facade", "from moesim import run\n"),
    ),
    _one("H1-floors", "sideways", "moesim/moe/x.py", "from moesim.model import layers\n"),
    _one("H1-floors", "sideways", "moesim/units.py", "from moesim.errors import MoesimError\n"),
    _one("H1-floors", "stands on no floor", "moesim/helpers.py", ""),
    Breach(
        "H1-floors",
        "imports moesim.sim: upwards",
        (("moesim/sim/__init__.py", ""), ("moesim/cost/x.py", "from moesim import sim\n")),
    ),
    Breach(
        "H1-cycles",
        "moesim.cost.a -> moesim.cost.b -> moesim.cost.a",
        (
            ("moesim/cost/a.py", "from moesim.cost import b\n"),
            ("moesim/cost/b.py", "def f() -> None:\n    from moesim.cost.a import x\n"),
        ),
    ),
    *_python(
        "H1-contract",
        "pyproject.toml",
        ("root_package", "[tool.ruff]\n"),
        ("no layers contract", "[tool.importlinter]\nroot_package = 'moesim'\n"),
        (
            "no layers contract",
            "[tool.importlinter]\nroot_package = 'moesim'\n[[tool.importlinter.contracts]]\n"
            "type = 'layers'\nlayers = ['moesim.cli', 'moesim.study']\n",
        ),
    ),
]

_HOMES = [
    *_python(
        "H2-lazy",
        "moesim/calibrate/x.py",
        ("torch", "import torch\n"),
        ("torch", "class A:\n    from torch import nn\n"),
        ("torch", "try:\n    import torch.nn\nexcept ImportError:\n    pass\n"),
        ("pandas", "import pandas as pd\n"),
        ("plotly", "from plotly.graph_objects import Figure\n"),
        ("dask", "import dask.distributed\n"),
        ("pyarrow", "import pyarrow\n"),
    ),
    *_python(
        "H3-homes",
        "moesim/cost/x.py",
        ("torch belongs", "def f() -> None:\n    import torch\n"),
        ("simpy belongs", "import simpy\n"),
        ("pydantic belongs", "from pydantic import BaseModel\n"),
        ("ruamel belongs", "from ruamel.yaml import YAML\n"),
        ("rich belongs", "def f() -> None:\n    from rich.table import Table\n"),
        ("typer belongs", "import typer\n"),
    ),
    _one("H3-homes", "rich belongs", "moesim/study/metrics.py", "import rich\n"),
    _one("H3-homes", "typer belongs", "moesim/study/report/x.py", "import typer\n"),
]

_SECONDS = [
    *_python(
        "H4-seconds",
        "moesim/hardware/x.py",
        ("all_to_all_s", "def all_to_all_s() -> float:\n    return 1.0\n"),
        ("A.latency_s", "class A:\n    def latency_s(self) -> float:\n        return 1.0\n"),
        ("time_s", "def f(a: float, b: float) -> None:\n    time_s = a / b\n"),
        ("time_s", "def f(a: float, b: float) -> None:\n    g(time_s=a / b)\n"),
    ),
    *_python(
        "H4-work",
        "moesim/sim/x.py",
        ("kv_bytes", "def f(kv_bytes: int) -> None: ...\n"),
        ("gemm_flop", "from moesim.cost.kernels import gemm_flop\n"),
        ("bytes_sent", "x.bytes_sent = 1\n"),
        ("flop", "f(flop=1)\n"),
    ),
]

_STATE = [
    *_python(
        "H5-state",
        "moesim/cost/x.py",
        ("global count", "count = 0\ndef f() -> None:\n    global count\n    count += 1\n"),
        ("nonlocal n", "def f() -> None:\n    n = 0\n    def g() -> None:\n        nonlocal n\n"),
        ("cache is mutable", "cache = {}\n"),
        ("_seen is mutable", "_seen: set[str] = set()\n"),
        ("known is mutable", "if True:\n    known = [1]\n"),
        ("rows is mutable", "import collections as c\nrows = c.defaultdict(list)\n"),
        ("shared is mutable", "class A:\n    shared = []\n"),
        ("constant TABLE", "TABLE = {}\ndef f() -> None:\n    TABLE['a'] = 1\n"),
        ("constant _LIST", "_LIST = []\ndef f() -> None:\n    _LIST.append(1)\n"),
        ("constant TABLE", "TABLE = {}\ndef f() -> None:\n    TABLE.update(a=1)\n"),
        ("constant TABLE", "TABLE = {1: 2}\ndel TABLE[1]\n"),
        ("constant other.TABLE", "def f() -> None:\n    other.TABLE['a'] = 1\n"),
        ("class state: A.n", "class A:\n    n = 0\n    def f(self) -> None:\n        A.n += 1\n"),
        ("class state: cls.n", "class A:\n    def f(cls) -> None:\n        cls.n = 1\n"),
        ("class state: type", "class A:\n    def f(self) -> None:\n        type(self).n = 1\n"),
        ("ids is a counter", "import itertools\nclass A:\n    ids = itertools.count()\n"),
        ("IDS is a counter", "from itertools import count as c\nIDS = c(1)\n"),
    ),
    *_python(
        "H5-random",
        "moesim/moe/x.py",
        ("random.random", "import random\nx = random.random()\n"),
        ("random.choice", "from random import choice\nx = choice([1])\n"),
        ("numpy.random.seed", "import numpy as np\nnp.random.seed(0)\n"),
        ("numpy.random.rand", "from numpy.random import rand\nx = rand(3)\n"),
        ("numpy.random.default_rng", "import numpy as np\nx = np.random.default_rng()\n"),
    ),
    *_python(
        "H5-clock",
        "moesim/study/x.py",
        ("time.time", "import time\nx = time.time()\n"),
        ("time.perf_counter", "from time import perf_counter as now\nx = now()\n"),
        ("datetime.datetime.now", "from datetime import datetime\nx = datetime.now()\n"),
        ("datetime.date.today", "import datetime as d\nx = d.date.today()\n"),
    ),
]

_OUTPUT = _python(
    "H6-output",
    "moesim/study/x.py",
    ("print", "print('x')\n"),
    ("print", "f(callback=print)\n"),
    ("sys.exit", "import sys\nsys.exit(1)\n"),
    ("sys.stderr", "import sys\nsys.stderr.write('x')\n"),
    ("SystemExit", "raise SystemExit(1)\n"),
    ("logging.basicConfig", "import logging\nlogging.basicConfig()\n"),
    ("logging is configured", "import logging\nlogging.getLogger().setLevel(10)\n"),
)

_SOURCED = [
    *_python(
        "H7-sourced",
        _CHIP,
        ("memory has no source", "memory: {value: 80 GiB, kind: datasheet}\n"),
        ("memory has no source", "memory: {value: 80 GiB, kind: datasheet, source: ' '}\n"),
        ("has kind 'guess'", "memory: {value: 80 GiB, kind: guess, source: a table}\n"),
        ("levels[0].memory has kind None", "levels:\n- memory: {value: 1, source: a table}\n"),
        ("memory is '80 GiB' without", "memory: 80 GiB\n"),
        ("not valid YAML", "memory: {value: [\n"),
    ),
    *_python(
        "H7-sourced",
        _MODEL,
        ("the model has no source", "hidden: 4096\n"),
        ("the model has no source", "source: ''\nhidden: 4096\n"),
        ("the model a has no source", "a: {hidden: 1}\nb: {hidden: 1, source: its config}\n"),
    ),
]

_PUBLIC = _python(
    "H8-public",
    "moesim/__init__.py",
    ("run is public but not in __all__", "def run() -> None:\n    'Run.'\n"),
    ("any is public", "from builtins import any\n__all__ = []\n"),
    ("run is in __all__ but does not exist", "__all__ = ['run']\n"),
    ("run is in __all__ but has no docstring", "__all__ = ['run']\ndef run() -> None: ...\n"),
    ("cannot be imported", "raise ValueError\n"),
)

_DOCUMENTED = [
    *_python(
        "docstrings",
        "moesim/cost/x.py",
        ("no module docstring", "x = 1\n"),
        ("f has no docstring", '"""X."""\ndef f() -> None: ...\n'),
        ("A has no docstring", '"""X."""\nclass A: ...\n'),
        ("A.f has no docstring", '"""X."""\nclass A:\n    "A."\n    def f(self) -> None: ...\n'),
    ),
    *_python(
        "annotations",
        "moesim/cost/x.py",
        ("no annotation of a", "def f(a) -> None: ...\n"),
        ("no annotation of a", "def f(*, a) -> None: ...\n"),
        ("no annotation of rest", "def f(**rest) -> None: ...\n"),
        ("no annotation of the result", "def f(a: int): ...\n"),
        ("no annotation of b", "class A:\n    def f(self, b) -> None: ...\n"),
        ("no annotation of b", "class A:\n    @staticmethod\n    def f(b) -> None: ...\n"),
    ),
]

_DANGER = _python(
    "danger",
    "moesim/calibrate/x.py",
    ("imports pickle", "import pickle\n"),
    ("eval", "def f(x: str) -> None:\n    eval(x)\n"),
    ("exec", "exec('x')\n"),
    ("yaml.load", "import yaml\nyaml.load('x')\n"),
    ("YAML(typ='unsafe')", "from ruamel.yaml import YAML\nYAML(typ='unsafe')\n"),
    ("torch.load", "def f() -> None:\n    import torch\n    torch.load('x')\n"),
    ("torch.load", "def f() -> None:\n    import torch\n    torch.load('x', weights_only=False)\n"),
    ("allow_pickle", "import numpy as np\nnp.load('x', allow_pickle=True)\n"),
    ("read_pickle", "def f() -> None:\n    import pandas as pd\n    pd.read_pickle('x')\n"),
    ("os.system", "import os\nos.system('x')\n"),
)

_TRACKED = [
    _one("top-level", "notes.txt: does not belong", "notes.txt", "x\n"),
    _one("top-level", "docs: does not belong", "docs/x.md", "x\n"),
    _one("places", "validation/x.md:2", "validation/x.md", f"a\nsee {_MACHINE}\n"),
    _one("places", "names a machine or a host", "pyproject.toml", f"x = 'https://{_HOST}'\n"),
]

_STARTUP = [
    Breach(
        "startup-imports",
        "moesim --help imports torch",
        (("torch.py", ""), ("moesim/__main__.py", "import torch\n")),
    ),
    _one("startup-imports", "exit code 1", "moesim/__main__.py", "raise ValueError\n"),
    _one("startup-time", "moesim --help takes", "moesim/__main__.py", "x = 1\n"),
]

BREACHES = (
    *_WALLS,
    *_FLOORS,
    *_HOMES,
    *_SECONDS,
    *_STATE,
    *_OUTPUT,
    *_SOURCED,
    *_PUBLIC,
    *_DOCUMENTED,
    *_DANGER,
    *_TRACKED,
    *_STARTUP,
)
