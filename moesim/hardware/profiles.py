"""Finds hardware profiles: shipped ones by name, others by the path of a .yaml file."""

from pathlib import Path

from moesim.errors import Problem, ScenarioError
from moesim.spec.hardware import AcceleratorSpec, ClusterSpec
from moesim.spec.shipped import find_named, shipped, shipped_names
from moesim.spec.validate import load


def accelerator_names() -> list[str]:
    """Return the names of the shipped accelerator profiles."""
    return shipped_names(_folder("accelerators"))


def cluster_names() -> list[str]:
    """Return the names of the shipped cluster profiles."""
    return shipped_names(_folder("clusters"))


def load_accelerator(name_or_path: str, base: Path | None = None) -> AcceleratorSpec:
    """Return an accelerator profile; a path that is not absolute starts at `base`.

    Raises ScenarioError for an unknown name or a file with mistakes in it.
    """
    path = _find("accelerators", name_or_path, base)
    spec = load(AcceleratorSpec, path)
    _check_name(spec.name, path)
    return spec


def load_cluster(name_or_path: str, base: Path | None = None) -> ClusterSpec:
    """Return a cluster profile; a path that is not absolute starts at `base`.

    Raises ScenarioError for an unknown name or a file with mistakes in it.
    """
    path = _find("clusters", name_or_path, base)
    spec = load(ClusterSpec, path)
    _check_name(spec.name, path)
    return spec


def _folder(kind: str) -> Path:
    return shipped("hwprofiles") / kind


def _find(kind: str, name: str, base: Path | None) -> Path:
    if name.endswith((".yaml", ".yml")):
        return (base or Path()) / name
    return find_named(_folder(kind), name, f"{kind.removesuffix('s')} profile")


def _check_name(name: str, path: Path) -> None:
    if name != path.stem:
        message = f"must be '{path.stem}', the name of the file, not '{name}'"
        raise ScenarioError([Problem("name", message, str(path), 1, 1)])
