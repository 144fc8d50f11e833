"""Measured routing as the load of a scenario: what was measured for a layer, from which file."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from moesim.errors import CalibrationError, nearest
from moesim.model.architecture import Architecture, MoeFfn
from moesim.moe.trace_dumps import DumpShape, read_array, read_jsonl
from moesim.moe.traces import CountTable, Trace, read_counts, read_npz
from moesim.spec.scenario import Scenario

Measured = tuple[Trace | CountTable, ...]


def of_layer(scenario: Scenario, architecture: Architecture, ffn: MoeFfn, place: int) -> Measured:
    """Return what was measured in the MoE layer at `place`, a trace or table for each domain.

    Raises ScenarioError at the key that is wrong.
    """
    return tuple(_only(one, place) for one in measured(scenario, architecture, ffn))


def measured(scenario: Scenario, architecture: Architecture, ffn: MoeFfn) -> Measured:
    """Return the traces or tables of the scenario's domains in all layers, in their order."""
    load = scenario.routing.load
    path = Path(scenario.path_of(load.trace or ""))
    shape = DumpShape(experts=ffn.num_experts, layers=architecture.num_layers, top_k=ffn.top_k)
    try:
        found = _of_model(_read(path, shape), ffn, path)
    except (CalibrationError, OSError) as error:
        raise scenario.error("routing.load.trace", str(error)) from None
    if not load.mixture:
        return _chosen(scenario, "routing.load.domain", found, load.domain)
    return tuple(
        _chosen(scenario, f"routing.load.mixture.{n}.domain", found, one.domain)[0]
        for n, one in enumerate(load.mixture)
    )


def _only(one: Trace | CountTable, place: int) -> Trace | CountTable:
    """Return what was measured in one layer, from the first again where there are fewer."""
    if isinstance(one, Trace):
        layer = place % len(one.ids)
        return replace(one, ids=one.ids[layer : layer + 1])
    layer = place % len(one.counts)
    return replace(one, counts=one.counts[layer : layer + 1], layers=one.layers[layer : layer + 1])


def _of_model(measured: Measured, ffn: MoeFfn, path: Path) -> Measured:
    """Return what was measured with as many experts and choices as the model has."""
    found = tuple(one for one in measured if _size(one) == (ffn.num_experts, ffn.top_k))
    if not found:
        sizes = ", ".join(f"{k} of {experts}" for experts, k in sorted({*map(_size, measured)}))
        raise CalibrationError(
            f"{path} has choices of {sizes} experts, the model chooses {ffn.top_k} of "
            f"{ffn.num_experts}"
        )
    return found


def _size(one: Trace | CountTable) -> tuple[int, int]:
    if isinstance(one, Trace):
        return one.experts, one.ids.shape[2]
    return one.counts.shape[1], one.top_k


@lru_cache(maxsize=8)
def _read(path: Path, shape: DumpShape) -> Measured:
    if path.suffix == ".npz":
        return tuple(read_npz(path, shape.experts).values())
    if path.suffix == ".csv":
        return tuple(read_counts(path))
    if path.suffix == ".jsonl":
        return (read_jsonl(path, shape, path.stem),)
    if path.suffix == ".npy":
        return (read_array(path, shape, path.stem),)
    raise CalibrationError(f"{path}: a trace is a .npz, .csv, .jsonl or .npy file")


def _chosen(scenario: Scenario, key: str, measured: Measured, domain: str | None) -> Measured:
    """Return what was measured in a domain, a model's first table first; all of it for None."""
    if domain is None:
        return measured
    names = [one.domain for one in measured]
    found = tuple(one for one in measured if one.domain == domain)
    if not found:
        listed = ", ".join(sorted(set(names)))
        message = f"the trace has no domain '{domain}'.{nearest(domain, names)} It has {listed}."
        raise scenario.error(key, message)
    return found
