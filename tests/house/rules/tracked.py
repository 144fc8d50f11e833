"""What stands in the repository: the fixed top level, and nothing that names a machine or host."""

import re
import subprocess
from pathlib import Path

TOP_LEVEL = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "moesim",
    "hwprofiles",
    "scenarios",
    "validation",
    "tests",
}

# Put together from pieces, so that this file does not contain what it looks for.
_FOLDERS = ("root", "work", "home", "opt", "mnt", "Users")
_HOSTS = (("pypi", "org"), ("files", "pythonhosted"), ("test", "pypi"))
FORBIDDEN = re.compile(
    rf"(?<![\w.])/(?:{'|'.join(_FOLDERS)})/[\w.]"
    rf"|{'|'.join(re.escape('.'.join(pieces)) for pieces in _HOSTS)}"
)


def files(root: Path) -> list[str] | None:
    """Return what git tracks below `root`, or None where there is no git or no repository."""
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return None if done.returncode else [name for name in done.stdout.split("\0") if name]


def violations(root: Path) -> list[str]:
    """Return what is too much, or missing, at the top level of the repository."""
    names = files(root)
    if names is None:
        return []
    top = {name.split("/")[0] for name in names}
    extra = sorted(name for name in top - TOP_LEVEL if not name.startswith("."))
    found = [f"{name}: does not belong to the top level" for name in extra]
    return found + [f"{name}: missing at the top level" for name in sorted(TOP_LEVEL - top)]


def place_violations(root: Path) -> list[str]:
    """Return absolute paths of a machine and hosts of package registries in tracked files."""
    found = []
    for name in files(root) or []:
        try:
            text = (root / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if match := FORBIDDEN.search(line):
                found.append(f"{name}:{number}: names a machine or a host: {match.group()}")
    return found
