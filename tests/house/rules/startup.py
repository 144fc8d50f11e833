"""How `moesim --help` starts: quickly, and without the slow packages."""

import os
import subprocess
import sys
import time
from pathlib import Path

SLOW = ("torch", "pandas", "plotly", "simpy", "pyarrow", "dask", "distributed", "scipy")
WALL_S = 0.6
WALL_RATIO = 20.0
TRIES = 5


def has_command(root: Path) -> bool:
    """Return whether `python -m moesim` exists below `root`."""
    return (root / "moesim" / "__main__.py").is_file()


def violations(root: Path) -> list[str]:
    """Return the slow packages that `moesim --help` imports, or its failure."""
    if not has_command(root):
        return []
    done = _python(root, "-X", "importtime", "-m", "moesim", "--help")
    if done.returncode:
        return [f"moesim --help ends with exit code {done.returncode}: {done.stderr[-300:]}"]
    rows = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    names = {row.rpartition("|")[2].strip().split(".")[0] for row in rows}
    return [f"moesim --help imports {name}" for name in SLOW if name in names]


def time_violations(root: Path) -> list[str]:
    """Return whether the best of some starts is beyond the wall."""
    if not has_command(root):
        return []
    help_s, bare_s = [], []
    for _ in range(TRIES):
        bare_s.append(_elapsed_s(root, "-c", "pass"))
        help_s.append(_elapsed_s(root, "-m", "moesim", "--help"))
        if not too_slow(min(help_s), min(bare_s)):
            return []
    return [f"moesim --help takes {min(help_s):.2f} s, a bare interpreter {min(bare_s):.2f} s"]


def too_slow(help_s: float, bare_s: float) -> bool:
    """Return whether a start is beyond the wall, seen absolutely and against the interpreter.

    On a loaded machine both are slow, so both walls must be passed.
    """
    return help_s > WALL_S and help_s > WALL_RATIO * bare_s


def _elapsed_s(root: Path, *arguments: str) -> float:
    start = time.perf_counter()
    _python(root, *arguments)
    return time.perf_counter() - start


def _python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
