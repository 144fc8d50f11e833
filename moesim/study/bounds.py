"""Many layouts judged without simulating them: a lower bound of step time, and peak memory.

Layouts with the same tp, cp, ep, etp, micro-batch and recomputation share the prices of their
layers; what pipelines make of them follows from counts of passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.cost.pricing import Machine, machine
from moesim.cost.work import Block
from moesim.errors import ScenarioError
from moesim.spec.parallel import ParallelSpec
from moesim.spec.scenario import Scenario
from moesim.study.cut import Alike, Cut, whole_blocks
from moesim.study.device_speeds import slowness, stage_stride
from moesim.study.order import check_order
from moesim.study.pipeline_bound import between_steps, peak_bytes, pipeline, step_bound_s
from moesim.study.resolve import Training, resolve, resolve_layout, training
from moesim.study.validity import check_batch, check_layout
from moesim.study.validity_chunks import check_schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutChoice:
    """One layout; what is None stays as the scenario says."""

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    ep: int = 1
    etp: int | None = None
    cp: int = 1
    micro_batch: int | None = None
    recompute: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What each layout comes to at best, in the order in which they were asked for."""

    step_s: NDArray[np.float64]
    """No simulated step is shorter; infinite where the layout is impossible."""
    peak_bytes: NDArray[np.float64]
    """Of the fullest rank under even loads; infinite where the layout is impossible."""
    reasons: tuple[str, ...]
    """Why a layout is impossible; empty where it is not."""
    capacity_bytes: float

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Which layouts fit into the memory of a device."""
        return self.peak_bytes <= self.capacity_bytes


@dataclass(slots=True)
class _Known:
    """What layouts share."""

    scenario: Scenario
    run: Training
    scenarios: dict[object, Scenario] = field(default_factory=dict)
    layers: dict[object, tuple[Machine, list[Block], Alike]] = field(default_factory=dict)
    """By all that their prices depend on but recomputation."""
    cuts: dict[object, Cut] = field(default_factory=dict)
    slowness: dict[tuple[int, int], tuple[float, ...]] = field(default_factory=dict)
    """By stages."""


def bounds(scenario: Scenario, layouts: Sequence[LayoutChoice]) -> Bounds:
    """Return the bounds of `layouts` for the model, machines and training of `scenario`.

    Loads are even, the best case of whatever law the scenario gives. Raises ScenarioError for
    what the bound does not know: encoders, fsdp, offloaded activations and a layout in letters.
    """
    run = resolve(scenario)
    _check(run)
    known = _Known(scenario, run)
    step_s = np.full(len(layouts), np.inf)
    peak = np.full(len(layouts), np.inf)
    reasons = [""] * len(layouts)
    for number, choice in enumerate(layouts):
        try:
            step_s[number], peak[number] = _bound(known, choice)
        except (ScenarioError, ValueError) as error:
            reasons[number] = str(error)
    capacity = run.cluster.device.memory_capacity_bytes
    return Bounds(step_s=step_s, peak_bytes=peak, reasons=tuple(reasons), capacity_bytes=capacity)


def _check(run: Training) -> None:
    scenario = run.scenario
    reasons = {
        "model": bool(run.architecture.encoder),
        "parallel.fsdp": run.layout.fsdp is not None,
        "parallel.layout": run.layout.chunk_layers is not None,
        "training.offload_layers": bool(run.job.offload_layers),
    }
    for key, wrong in reasons.items():
        if wrong:
            raise scenario.error(key, "is not known to the bound over layouts; use moesim.run")


def _bound(known: _Known, choice: LayoutChoice) -> tuple[float, float]:
    scenario = _scenario(known, choice)
    spec = ParallelSpec(**_parallel(known.scenario, choice))
    cluster = known.run.cluster
    layout = resolve_layout(scenario, spec, cluster.topology.devices, "parallel")
    check_order(scenario, layout, "parallel")
    check_layout(scenario, known.run.architecture, layout, "parallel")
    micro_batches = check_batch(scenario, layout, "parallel")
    check_schedule(scenario, layout, micro_batches, "parallel")
    on = machine(cluster.device, cluster.topology, known.run.software, layout)
    cut = _cut(known, scenario, spec, on)
    place = layout.pp, stage_stride(layout)
    if place not in known.slowness:
        known.slowness[place] = slowness(scenario.cluster, scenario.seed, layout)
    line = pipeline(cut, on, micro_batches, known.slowness[place])
    between = between_steps(line)
    return step_bound_s(line, between), peak_bytes(line, between)


def _parallel(scenario: Scenario, choice: LayoutChoice) -> dict[str, Any]:
    degrees = {name: getattr(choice, name) for name in ("tp", "pp", "vpp", "ep", "etp", "cp")}
    return {**scenario.parallel.model_dump(), **degrees}


def _scenario(known: _Known, choice: LayoutChoice) -> Scenario:
    """Return the scenario with the micro-batch and recomputation of a layout."""
    key = (choice.micro_batch, choice.recompute)
    if key not in known.scenarios:
        update = {
            name: value
            for name, value in (("micro_batch", key[0]), ("recompute", key[1]))
            if value is not None
        }
        changed = known.scenario.training.model_copy(update=update)
        known.scenarios[key] = known.scenario.model_copy(update={"training": changed})
    return known.scenarios[key]


_GROUPS = ("tp", "cp", "ep", "etp")
"""Those over which layers communicate; where they lie may depend on the order of ranks."""


def _cut(known: _Known, scenario: Scenario, spec: ParallelSpec, on: Machine) -> Cut:
    job, again, layout = scenario.training.micro_batch, scenario.training.recompute, on.layout
    nets = tuple(on.networks[name] for name in _GROUPS)
    key = (layout.tp, layout.cp, layout.ep, layout.etp, nets, job)
    if (key, again) not in known.cuts:
        run, cluster = known.run, known.run.cluster
        made = training(scenario, run.architecture, cluster, run.software, spec)
        if key not in known.layers:
            known.layers[key] = (on, whole_blocks(made), {})
        known.cuts[key, again] = Cut(made, *known.layers[key])
    return known.cuts[key, again]
