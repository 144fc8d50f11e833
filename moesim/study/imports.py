"""Megatron-LM arguments as a scenario: the model looked up in the catalogue, the whole checked."""

from dataclasses import dataclass, replace
from pathlib import Path

from moesim.errors import MoesimError, Problem, ScenarioError, nearest
from moesim.model.architecture import Architecture, MoeFfn, Run
from moesim.model.from_spec import architecture_from_spec
from moesim.model.named import load_named, named_models
from moesim.moe.natural import natural_cv
from moesim.spec.hardware import ClusterSpec
from moesim.spec.megatron.read import Imported, Source, fates, read_megatron
from moesim.spec.megatron.reading import Entry
from moesim.spec.megatron.write import model_text, plain, scenario_text
from moesim.spec.model import ModelSpec
from moesim.spec.scenario import Scenario
from moesim.spec.shipped import names_file, shipped, shipped_names
from moesim.spec.validate import build, load
from moesim.spec.yaml_text import Document
from moesim.study.resolve import resolve_with


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """An imported run as files, and what its arguments became."""

    imported: Imported
    scenario: str
    """The scenario's YAML."""
    model: str | None
    """The model's YAML; None where it is one of the catalogue."""
    model_name: str
    architecture: Architecture
    trouble: str = ""
    """Why moesim cannot simulate it as it stands; empty where it can."""


def import_megatron(source: Source, accelerator: str, name: str) -> Import:
    """Return the arguments in `source` as a scenario on `accelerator` (or a cluster profile).

    A model whose every size is that of one of the catalogue is called by its name; another is
    written to a file NAME-model.yaml beside the scenario. Raises ScenarioError.
    """
    cluster = cluster_of(accelerator)
    imported = read_megatron(source, natural_cv)
    spec = build(ModelSpec, Document({"name": name, "source": "Megatron-LM arguments",
                 **plain({key.removeprefix("model."): entry for key, entry
                          in imported.reading.model.items()})}))  # fmt: skip
    architecture = architecture_from_spec(spec)
    known = same_model(architecture)
    file = f"{name}-model.yaml"
    head = {
        "name": Entry(value=name, why=""),
        "model": Entry(value=known or file, why="every size as in the catalogue" if known else
                       "the sizes that the arguments say"),
        "cluster.profile": Entry(value=cluster, why=""),
        "cluster.devices": Entry(value=imported.devices, why=""),
        "software": Entry(value="megatron", why=""),
    }  # fmt: skip
    entries = head | imported.reading.scenario
    trouble = _trouble(build(Scenario, Document(plain(entries))), architecture)
    return Import(
        imported=imported,
        scenario=scenario_text(entries, _head(imported)),
        model=None if known else model_text(imported.reading.model, name),
        model_name=known or file,
        architecture=architecture,
        trouble=trouble,
    )


def _trouble(scenario: Scenario, architecture: Architecture) -> str:
    try:
        resolve_with(scenario, architecture)
    except MoesimError as error:
        return str(error).splitlines()[0]
    return ""


def _head(imported: Imported) -> list[str]:
    lines = ["Imported from Megatron-LM arguments by `moesim import megatron`."]
    left = [fate for fate in fates(imported) if fate.kind == "not modelled"]
    if left:
        lines += ["", "Not modelled, and what would change:"]
        lines += [f"  {fate.argument}: {fate.became}" for fate in left]
    if imported.reading.notes:
        lines += ["", *imported.reading.notes]
    if imported.unknown:
        lines += ["", f"Unknown, left out: {', '.join(map(str, imported.unknown))}"]
    return lines


def same_model(architecture: Architecture) -> str | None:
    """Return the name of the model in the catalogue that has exactly the same layers and sizes."""
    wanted = _shape(architecture)
    return next((name for name in named_models() if _shape(load_named(name)) == wanted), None)


def _shape(one: Architecture) -> Architecture:
    """Leave out names, how published weights are stored, and recipes of training."""
    decoder = tuple(Run(replace(run.layer, ffn=_without_recipe(run.layer.ffn))
                        if isinstance(run.layer.ffn, MoeFfn) else run.layer, run.count)
                    for run in one.decoder)  # fmt: skip
    return replace(one, name="", source="", weight_dtype="", decoder=decoder)


def _without_recipe(ffn: MoeFfn) -> MoeFfn:
    limited = ffn.groups > 1
    return replace(ffn, capacity_factor=None, group_best=ffn.group_best if limited else 2)


def cluster_of(name: str) -> str:
    """Return the cluster profile called `name`, or the usual one with that accelerator.

    Of several the maker's own (dgx, hgx) comes first; ScenarioError where that does not decide.
    """
    folder = shipped("hwprofiles") / "clusters"
    names = shipped_names(folder)
    if name in names or names_file(name):
        return name
    having = [one for one in names if _accelerator(folder / f"{one}.yaml") == name]
    usual = [one for one in having if one.startswith(("dgx-", "hgx-"))]
    if len(having) == 1 or len(usual) == 1:
        return (usual or having)[0]
    if having:
        message = f"'{name}' is in several clusters, name one: {', '.join(having)}"
    else:
        known = sorted({*names, *(_accelerator(folder / f"{one}.yaml") for one in names)})
        message = f"unknown accelerator or cluster '{name}'.{nearest(name, known)}"
    raise ScenarioError([Problem("--accelerator", message)])


def _accelerator(path: Path) -> str:
    return load(ClusterSpec, path).accelerator
