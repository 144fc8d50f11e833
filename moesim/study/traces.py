"""Measured routing as the load of a scenario: which shares a layer takes from which file."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from moesim import rng
from moesim.errors import CalibrationError, nearest
from moesim.model.architecture import MoeFfn
from moesim.moe.trace_law import DETAILS, law_of
from moesim.moe.traces import CountTable, Trace, read_counts, read_npz
from moesim.spec.scenario import Scenario

Measured = tuple[Trace | CountTable, ...]


def measured_shares(scenario: Scenario, ffn: MoeFfn, place: int) -> tuple[float, ...]:
    """Return the shares of the experts of the MoE layer at `place`; empty where no trace is asked.

    Raises ScenarioError at the key that is wrong.
    """
    load = scenario.routing.load
    if load.trace is None:
        return ()
    path = Path(scenario.path_of(load.trace))
    try:
        law = law_of(_chosen(_of_model(_read(path, ffn.num_experts), ffn, path), load.domain))
    except (CalibrationError, OSError) as error:
        raise scenario.error("routing.load.trace", str(error)) from None
    by_domain = law.shares[:, place % law.shares.shape[1]]
    stream = rng.stream(scenario.seed, f"trace/MoE layer {place}")
    kept = DETAILS[load.detail or "shares"](by_domain, stream)
    return tuple(float(share) for share in np.mean(kept, axis=0))


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
def _read(path: Path, experts: int) -> Measured:
    if path.suffix == ".npz":
        return tuple(read_npz(path, experts).values())
    if path.suffix == ".csv":
        return tuple(read_counts(path))
    raise CalibrationError(f"{path}: a trace is a .npz or a .csv file")


def _chosen(measured: Measured, domain: str | None) -> Measured:
    if domain is None:
        return measured
    names = [one.domain for one in measured]
    found = tuple(one for one in measured if one.domain == domain)
    if not found:
        listed = ", ".join(sorted(set(names)))
        raise CalibrationError(f"no domain '{domain}'.{nearest(domain, names)} There are {listed}.")
    return found
