"""What would make a run fit that does not: single changes, or the fewest that are enough."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moesim.errors import MoesimError
from moesim.spec.parallel import ParallelSpec
from moesim.spec.scenario import Scenario
from moesim.spec.training import RECOMPUTABLE
from moesim.study.bound import Bound, bound
from moesim.study.resolve import Training, training
from moesim.study.simulate import simulate

_WIDTH, _DEPTH = 4, 4
"""How many ways are followed where no single change is enough, and changes together at most."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change, with the fullest rank's bytes and the step time after it."""

    settings: tuple[str, ...]
    """What is set, as --set takes it."""
    peak_bytes: float
    step_s: float
    fits: bool
    saved_bytes: float
    """What the fullest rank needs less."""
    single: bool = True
    """Whether it is one of the changes that are tried alone."""


@dataclass(frozen=True, slots=True)
class _Tried:
    """Settings, and what they lead to without simulation."""

    settings: tuple[str, ...]
    bound: Bound
    changes: int


def advice(run: Training) -> tuple[Change, ...]:
    """Return the single changes that lower the peak: what fits, the fastest first, then the rest.

    Where none of them is enough, several together come first that are. Only changes that keep the
    scenario valid are listed.
    """
    before = Bound(run=run, step_s=0.0, peak_bytes=bound(run).peak_bytes)
    found = list(_tried(_Tried((), before, 0)))
    together = [] if any(one.bound.fits for one in found) else _together(found)
    changes = [_change(one, before.peak_bytes) for one in (*together, *found)]
    return tuple(sorted(changes, key=lambda change: (not change.fits, _rank(change))))


def _tried(start: _Tried) -> Iterator[_Tried]:
    """Yield what is reached by one change more, of a key that has not changed yet."""
    run = start.bound.run
    done = {setting.partition("=")[0] for setting in start.settings}
    for settings, scenario in _candidates(run):
        if settings[0].partition("=")[0] in done:
            continue
        try:
            changed = training(
                scenario, run.architecture, run.cluster, run.software, scenario.parallel
            )
            after = bound(changed)
        except MoesimError:
            continue
        if after.peak_bytes < start.bound.peak_bytes:
            yield _Tried((*start.settings, *settings), after, start.changes + 1)


def _together(singles: list[_Tried]) -> list[_Tried]:
    """Return the fastest few ways to fit by the fewest changes, followed from those that save most.

    Of two ways with the same changes in another order one is kept.
    """
    ways = singles
    for _ in range(_DEPTH - 1):
        ways = sorted(ways, key=lambda way: way.bound.peak_bytes)[:_WIDTH]
        further = {frozenset(one.settings): one for way in ways for one in _tried(way)}
        ways = list(further.values())
        enough = [way for way in ways if way.bound.fits]
        if enough:
            return sorted(enough, key=lambda way: way.bound.step_s)[:_WIDTH]
    return []


def _change(tried: _Tried, before: float) -> Change:
    after = tried.bound
    step_s = simulate(after.run).metrics.step_s if after.fits else after.step_s
    saved = before - after.peak_bytes
    return Change(tried.settings, after.peak_bytes, step_s, after.fits, saved, tried.changes == 1)


def _rank(change: Change) -> float:
    return change.step_s if change.fits else change.peak_bytes


def _candidates(run: Training) -> Iterator[tuple[tuple[str, ...], Scenario]]:
    """Yield what is set, and the scenario with it."""
    scenario, layout = run.scenario, run.layout
    for degree in ("tp", "pp", "ep", "cp"):
        for factor in (2, 4, 8):
            value = getattr(layout, degree) * factor
            settings: tuple[str, ...] = (f"parallel.{degree}={value}",)
            if degree == "tp" and scenario.parallel.etp is None and run.architecture.is_moe:
                settings = (*settings, f"parallel.etp={layout.etp}")
            yield settings, _parallel(scenario, layout.etp, {degree: value})
    if layout.fsdp is None and layout.dp > 1:
        yield (f"parallel.fsdp={layout.dp}",), _parallel(scenario, layout.etp, {"fsdp": layout.dp})
    for setting, update in _training_changes(run):
        spec = scenario.training.model_copy(update=update)
        yield (setting,), scenario.model_copy(update={"training": spec})


def _training_changes(run: Training) -> Iterator[tuple[str, dict[str, Any]]]:
    spec, layers = run.scenario.training, run.architecture.num_layers
    yield f"training.offload_layers={layers}", {"offload_layers": layers}
    if spec.micro_batch > 1:
        yield "training.micro_batch=1", {"micro_batch": 1}
    for names in (*((name,) for name in RECOMPUTABLE), ("layernorm", "moe_act")):
        yield f"training.recompute=[{', '.join(names)}]", {"recompute": names}
    yield "training.recompute=full", {"recompute": ("full",)}
    changes = [("distributed", True), ("gradient_dtype", "bf16"), ("offload", 1.0)]
    if spec.optimizer.kind == "adam":
        changes.append(("moment_dtype", "int8"))
    for key, value in changes:
        optimizer = spec.optimizer.model_copy(update={key: value})
        text = "true" if value == 1.0 else str(value)
        yield f"training.optimizer.{key}={text}", {"optimizer": optimizer}


def _parallel(scenario: Scenario, etp: int, update: dict[str, Any]) -> Scenario:
    """Change one degree; a left-out etp keeps the value it had."""
    values = {**scenario.parallel.model_dump(), "etp": etp, **update}
    try:
        parallel = ParallelSpec(**values)
    except ValueError:
        parallel = scenario.parallel
    return scenario.model_copy(update={"parallel": parallel})
