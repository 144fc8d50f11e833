"""What would make a run fit that does not: one change at a time, with what each leaves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moesim.errors import MoesimError
from moesim.spec.parallel import ParallelSpec
from moesim.spec.scenario import Scenario
from moesim.spec.training import RECOMPUTABLE
from moesim.study.bound import bound
from moesim.study.resolve import Training, training
from moesim.study.simulate import simulate


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one key, with the fullest rank's bytes and the step time after it."""

    setting: str
    peak_bytes: float
    step_s: float
    fits: bool


def advice(run: Training) -> tuple[Change, ...]:
    """Return the single changes that lower the peak: what fits, the fastest first, then the rest.

    Only changes that keep the scenario valid are listed.
    """
    before = bound(run).peak_bytes
    found = []
    for setting, scenario in _candidates(run):
        try:
            changed = training(
                scenario, run.architecture, run.cluster, run.software, scenario.parallel
            )
            after = bound(changed)
        except MoesimError:
            continue
        if after.peak_bytes < before:
            step_s = simulate(changed).metrics.step_s if after.fits else after.step_s
            found.append(Change(setting, after.peak_bytes, step_s, after.fits))
    return tuple(sorted(found, key=lambda change: (not change.fits, _rank(change))))


def _rank(change: Change) -> float:
    return change.step_s if change.fits else change.peak_bytes


def _candidates(run: Training) -> Iterator[tuple[str, Scenario]]:
    scenario, layout = run.scenario, run.layout
    for degree in ("tp", "pp", "ep", "cp"):
        for factor in (2, 4, 8):
            value = getattr(layout, degree) * factor
            yield f"parallel.{degree}={value}", _parallel(scenario, layout.etp, {degree: value})
    if layout.fsdp is None and layout.dp > 1:
        yield f"parallel.fsdp={layout.dp}", _parallel(scenario, layout.etp, {"fsdp": layout.dp})
    layers = run.architecture.num_layers
    yield f"training.offload_layers={layers}", _training(scenario, {"offload_layers": layers})
    if scenario.training.micro_batch > 1:
        yield "training.micro_batch=1", _training(scenario, {"micro_batch": 1})
    for names in (*((name,) for name in RECOMPUTABLE), ("layernorm", "moe_act")):
        listed = ", ".join(names)
        yield f"training.recompute=[{listed}]", _training(scenario, {"recompute": names})
    yield "training.recompute=full", _training(scenario, {"recompute": ("full",)})
    changes = [("distributed", True), ("gradient_dtype", "bf16"), ("offload", 1.0)]
    if scenario.training.optimizer.kind == "adam":
        changes.append(("moment_dtype", "int8"))
    for key, value in changes:
        optimizer = scenario.training.optimizer.model_copy(update={key: value})
        text = "true" if value == 1.0 else str(value)
        yield f"training.optimizer.{key}={text}", _training(scenario, {"optimizer": optimizer})


def _parallel(scenario: Scenario, etp: int, update: dict[str, Any]) -> Scenario:
    """Change one degree; a left-out etp keeps the value it had, or tp would change two keys."""
    values = {**scenario.parallel.model_dump(), "etp": etp, **update}
    try:
        parallel = ParallelSpec(**values)
    except ValueError:
        parallel = scenario.parallel
    return scenario.model_copy(update={"parallel": parallel})


def _training(scenario: Scenario, update: dict[str, Any]) -> Scenario:
    changed = scenario.training.model_copy(update=update)
    return scenario.model_copy(update={"training": changed})
