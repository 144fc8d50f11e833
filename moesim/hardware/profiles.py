"""Finds hardware profiles: shipped ones by name, others by the path of a .yaml file."""

from pathlib import Path
from typing import TypeVar

from moesim.errors import Problem, ScenarioError
from moesim.spec.hardware import AcceleratorSpec, ClusterSpec
from moesim.spec.shipped import find_named, shipped, shipped_names
from moesim.spec.validate import build, read_document

_Profile = TypeVar("_Profile", AcceleratorSpec, ClusterSpec)


def accelerator_names() -> list[str]:
    """Return the names of the shipped accelerator profiles."""
    return shipped_names(_folder("accelerators"))


def cluster_names() -> list[str]:
    """Return the names of the shipped cluster profiles."""
    return shipped_names(_folder("clusters"))


def load_machines(
    cluster: str, accelerator: str | None = None, base: Path | None = None
) -> tuple[ClusterSpec, AcceleratorSpec]:
    """Return a cluster profile and its accelerator, or another `accelerator` in its place.

    Raises ScenarioError for an unknown name or a file with mistakes in it.
    """
    spec = load_cluster(cluster, base)
    if accelerator is not None:
        return spec, load_accelerator(accelerator, base)
    beside = _find("clusters", cluster, base).parent
    return spec, load_accelerator(spec.accelerator, beside)


def load_accelerator(name_or_path: str, base: Path | None = None) -> AcceleratorSpec:
    """Return an accelerator profile; a path that is not absolute starts at `base`.

    Raises ScenarioError for an unknown name or a file with mistakes in it.
    """
    return _load(AcceleratorSpec, _find("accelerators", name_or_path, base))


def load_cluster(name_or_path: str, base: Path | None = None) -> ClusterSpec:
    """Return a cluster profile; a path that is not absolute starts at `base`.

    Raises ScenarioError for an unknown name or a file with mistakes in it.
    """
    return _load(ClusterSpec, _find("clusters", name_or_path, base))


def _load(kind: type[_Profile], path: Path) -> _Profile:
    document = read_document(path)
    spec = build(kind, document)
    if spec.name != path.stem:
        message = f"must be '{path.stem}', the name of the file, not '{spec.name}'"
        raise ScenarioError([Problem("name", message, *document.at(("name",)))])
    return spec


def _folder(kind: str) -> Path:
    return shipped("hwprofiles") / kind


def _find(kind: str, name: str, base: Path | None) -> Path:
    if name.endswith((".yaml", ".yml")):
        return (base or Path()) / name
    return find_named(_folder(kind), name, f"{kind.removesuffix('s')} profile")
