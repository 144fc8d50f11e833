"""Finds the files that come with moesim: from a wheel, an editable install or a checkout."""

from pathlib import Path
from typing import Literal

from moesim.errors import Problem, ScenarioError, nearest

Folder = Literal["hwprofiles", "scenarios", "validation"]


def shipped(folder: Folder) -> Path:
    """Return the directory of the shipped `folder`.

    A wheel holds it under moesim/data; in a checkout it stands beside the package.
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "data" / folder
    return inside if inside.is_dir() else package.parent / folder


def names_file(name: str) -> bool:
    """Return whether `name` is the path of a file rather than the name of something shipped."""
    return (
        name.endswith((".json", ".yaml", ".yml", ".npz", ".csv", ".npy", ".jsonl")) or "/" in name
    )


def shipped_names(folder: Path) -> list[str]:
    """Return the names of the YAML files in `folder`, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def find_named(folder: Path, name: str, what: str) -> Path:
    """Return the file called `name` in `folder`.

    Raises ScenarioError with the nearest known name; `what` says what is looked for.
    """
    names = shipped_names(folder)
    if name in names:
        return folder / f"{name}.yaml"
    known = f" Known: {', '.join(names)}." if len(names) <= 40 else f" {len(names)} are known."
    raise ScenarioError(
        [Problem("", f"unknown {what} '{name[:100]}'.{nearest(name, names)}{known}")]
    )
