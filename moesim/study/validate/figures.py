"""Figures of a case as records: those that were predicted, and those that have no counterpart."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from moesim.spec.cases import Case
from moesim.study.validate.record import Record, ran

SAME_SPEED = frozenset(
    {"step_time_s", "tokens_per_s_per_gpu", "examples_per_s", "forward_ms", "backward_ms"}
    | {"model_tflops_per_gpu", "mfu_pct"}
)
"""One speed in several units."""

_NO_RESULTS = frozenset({"mfu_peak_tflops"})
"""What stands beside a figure to say how it was counted."""

_FLOP = "sources count FLOP in four ways: a rate of them needs the FLOP per token it was counted by"

_NO_COUNTERPART = {
    "model_tflops_per_gpu": _FLOP,
    "mfu_pct": _FLOP,
    "training_days": "days of a whole campaign, with its failures and ramps inside",
    "per_layer_fbw_ms": "the span over the layers: compared as gpu_span_ms",
    "cached_notify_ms_total": "kernels that wait for other ranks are no operators of a run",
    "notify_dispatch_ms_total": "kernels that wait for other ranks are no operators of a run",
}
"""Why a figure that is known is not compared."""


def number(value: Any) -> float | None:
    """Return a figure as a number; None for what is none, and for endless ones."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def compared_figures(case: Case, predicted: Mapping[str, float], record: Record) -> list[Record]:
    """Return a record for each figure of `case` that was predicted, in the unit of its name."""
    measured = {name: number(value) for name, value in case.part("measured").items()}
    return [
        ran(record, name, value, figure)
        for name, value in predicted.items()
        if (figure := measured.get(name)) is not None
    ]


def not_compared(
    case: Case, found: Iterable[Record], record: Record, why: Mapping[str, str] | None = None
) -> list[Record]:
    """Return a skipped record for each measured figure of `case` that no record of `found` has.

    The same speed in another unit is no figure of its own once one of them is compared. `why` has
    reasons for figures by name.
    """
    have = {one.metric for one in found}
    reasons = {**_NO_COUNTERPART, **(why or {})}
    fast = bool(have & SAME_SPEED)
    return [
        replace(
            record,
            metric=str(name),
            measured=number(value),
            reason=reasons.get(str(name)) or _reason(str(name), value),
        )
        for name, value in case.part("measured").items()
        if name not in have | _NO_RESULTS and not (fast and name in SAME_SPEED)
    ]


def _reason(name: str, value: Any) -> str:
    if number(value) is None:
        return f"{name} is no single number"
    return f"{name} has no counterpart among the predictions"
