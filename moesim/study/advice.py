"""What would make a run fit that does not: one change at a time, with what each leaves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moesim.errors import MoesimError
from moesim.spec.parallel import ParallelSpec
from moesim.spec.scenario import Scenario
from moesim.study.resolve import Training, training
from moesim.study.routing import draw
from moesim.study.simulate import memory, stage_orders
from moesim.study.split import stage_chunks


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one key, and the bytes on the fullest rank after it."""

    setting: str
    peak_bytes: float
    fits: bool


def advice(run: Training) -> tuple[Change, ...]:
    """Return the single changes that lower the peak, the most helpful first.

    Only changes that keep the scenario valid are listed.
    """
    capacity = run.cluster.device.memory_capacity_bytes
    before = peak_bytes(run)
    found = []
    for setting, scenario in _candidates(run):
        try:
            changed = training(
                scenario, run.architecture, run.cluster, run.software, scenario.parallel
            )
        except MoesimError:
            continue
        after = peak_bytes(changed)
        if after < before:
            found.append(Change(setting, after, after <= capacity))
    return tuple(sorted(found, key=lambda change: change.peak_bytes))


def peak_bytes(run: Training) -> float:
    """Return the bytes on the fullest rank of a run."""
    stages = stage_chunks(run)
    return max(stage.total for stage in memory(run, stages, stage_orders(run), draw(run, 0)))


def _candidates(run: Training) -> Iterator[tuple[str, Scenario]]:
    scenario, layout = run.scenario, run.layout
    for degree in ("tp", "pp", "ep", "cp"):
        for factor in (2, 4, 8):
            value = getattr(layout, degree) * factor
            yield f"parallel.{degree}={value}", _parallel(scenario, layout.etp, {degree: value})
    if scenario.training.micro_batch > 1:
        yield "training.micro_batch=1", _training(scenario, {"micro_batch": 1})
    for name in ("moe_act", "layernorm", "mla_up_proj", "mlp", "moe"):
        yield f"training.recompute=[{name}]", _training(scenario, {"recompute": (name,)})
    yield "training.recompute=full", _training(scenario, {"recompute": ("full",)})
    for key, value in (("distributed", True), ("gradient_dtype", "bf16"), ("offload", True)):
        optimizer = scenario.training.optimizer.model_copy(update={key: value})
        text = str(value).lower()
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
