"""Predicted against measured, trial by trial and in the median of each kind."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.calibrate.verify.plan import Trial
from moesim.calibrate.verify.predict import Predicted
from moesim.calibrate.verify.steps import Measured

TARGETS = {"dense step": 0.20, "moe step": 0.20, "prefill": 0.20, "decode": 0.20,
           "moe over dense": 0.15}  # fmt: skip
GPU_TARGETS = {"dense step": 0.12, "moe step": 0.12, "prefill": 0.12, "decode": 0.12,
               "moe over dense": 0.10}  # fmt: skip
"""Median absolute errors that the prediction should stay within."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A trial, measured and predicted."""

    trial: Trial
    measured: Measured
    predicted: Predicted
    predicted_memory_bytes: float | None

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted.seconds / self.measured.timing.seconds - 1


@dataclass(frozen=True, slots=True)
class Verification:
    """All trials; `gpu` sets the targets."""

    compared: tuple[Compared, ...]
    gpu: bool = False


def over_dense(found: Verification, one: Compared) -> tuple[float, float] | None:
    """Return measured and predicted time of a MoE model over its dense twin's."""
    twin = one.trial.twin
    for other in found.compared:
        if other.trial == twin and not other.measured.timing.disturbed:
            measured = one.measured.timing.seconds / other.measured.timing.seconds
            return measured, one.predicted.seconds / other.predicted.seconds
    return None


def medians(found: Verification) -> dict[str, dict[str, float]]:
    """Return the median absolute error of each kind that was measured, and its target.

    Trials that other programs disturbed do not count.
    """
    errors: dict[str, list[float]] = {name: [] for name in TARGETS}
    for one in found.compared:
        if one.measured.timing.disturbed:
            continue
        phase = one.trial.phase
        step = "moe step" if one.trial.model.num_experts else "dense step"
        errors[step if phase == "train" else phase].append(abs(one.error))
        if (both := over_dense(found, one)) is not None:
            errors["moe over dense"].append(abs(both[1] / both[0] - 1))
    targets = GPU_TARGETS if found.gpu else TARGETS
    return {
        name: {"median": float(np.median(values)), "target": targets[name]}
        for name, values in errors.items()
        if values
    }


def misses(found: Verification) -> list[str]:
    """Return what is outside of its target, in words."""
    if 2 * disturbed(found) > len(found.compared):
        return [
            f"{disturbed(found)} of {len(found.compared)} models were disturbed by other programs: "
            "nothing can be said; verify on a quiet machine, or with --threads 1"
        ]
    return [
        f"{name}: median error {one['median']:.1%}, target {one['target']:.0%}"
        for name, one in medians(found).items()
        if one["median"] > one["target"]
    ]


def disturbed(found: Verification) -> int:
    """Return how many trials other programs disturbed."""
    return sum(1 for one in found.compared if one.measured.timing.disturbed)


def as_rows(found: Verification) -> list[dict[str, Any]]:
    """Return one row per trial, in base units."""
    rows = []
    for one in found.compared:
        trial, seconds = one.trial, one.measured.timing.seconds
        ratio = over_dense(found, one)
        rows.append(
            {
                "model": trial.model.name,
                "phase": trial.phase,
                "sequences": trial.sequences,
                "length": trial.length,
                "measured_s": seconds,
                "predicted_s": one.predicted.seconds,
                "error": one.error,
                "spread": one.measured.timing.spread,
                "disturbed": one.measured.timing.disturbed,
                "tokens_per_s": trial.tokens / seconds,
                "predicted_tokens_per_s": trial.tokens / one.predicted.seconds,
                "memory_bytes": one.measured.memory_bytes,
                "predicted_memory_bytes": one.predicted_memory_bytes,
                "dropped_fraction": one.measured.dropped_fraction,
                "predicted_dropped_fraction": one.predicted.dropped_fraction,
                "over_dense": ratio[0] if ratio else None,
                "predicted_over_dense": ratio[1] if ratio else None,
                "predicted_s_by_piece": one.predicted.by_piece,
            }
        )
    return rows
