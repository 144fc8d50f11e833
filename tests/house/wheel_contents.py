"""What the wheel must hold: `python wheel_contents.py CHECKOUT WHEEL` names what is missing."""

import sys
import zipfile
from pathlib import Path

SHIPPED = {
    "hwprofiles": "moesim/data/hwprofiles",
    "scenarios": "moesim/data/scenarios",
    "validation": "moesim/data/validation",
    "moesim": "moesim",
}
"""Folders of the checkout, and where the wheel has them."""

_PASSING = ("__pycache__", ".pyc")


def violations(root: Path, wheel: Path) -> list[str]:
    """Return the files of the checkout that the wheel lacks, and shipped folders that are empty."""
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    found = []
    for folder, place in SHIPPED.items():
        names = _files(root / folder)
        if not names:
            found.append(f"{folder}: nothing to ship")
        found += [f"{folder}/{name}: not in the wheel" for name in names - _below(inside, place)]
    return sorted(found)


def _files(folder: Path) -> set[str]:
    paths = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return {path for path in paths if not any(part in path for part in _PASSING)}


def _below(names: set[str], place: str) -> set[str]:
    return {name[len(place) + 1 :] for name in names if name.startswith(f"{place}/")}


if __name__ == "__main__":
    _PROBLEMS = violations(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stderr.write("".join(f"{problem}\n" for problem in _PROBLEMS))
    sys.exit(bool(_PROBLEMS))
