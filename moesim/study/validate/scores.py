"""Errors of groups of records: median, 90th percentile, bias, and the share that ran."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from moesim.study.validate.contrasts import SPEEDS
from moesim.study.validate.inference import judged
from moesim.study.validate.record import Record

Key = Callable[[Record], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How far off the predictions of a group are; None where none of it ran."""

    name: tuple[str, ...]
    ran: int
    total: int
    median: float | None
    """Of the absolute relative errors."""
    p90: float | None
    bias: float | None
    """Mean of the signed relative errors; of a rate, that of the time it takes: + is too slow."""


def what(metric: str) -> str:
    """Return speed, memory, another metric, or skipped: errors of one kind are judged together."""
    if metric in SPEEDS:
        return "speed"
    if "mem" in metric:
        return "memory"
    return metric or "skipped"


def figure_of(record: Record) -> str:
    """Return what a record is judged with: `what` of its metric, or its name in inference."""
    return judged.figure(record.metric) if record.kind in judged.KINDS else what(record.metric)


def source_name(source: str) -> str:
    """Return the repository or paper at the head of a source's text."""
    head = (
        source.split(" ", maxsplit=1)[0]
        .split(":", maxsplit=1)[0]
        .split("@", maxsplit=1)[0]
        .rstrip(",;")
    )
    return source[:16].strip() if head.casefold() == "arxiv" else head


DIMENSIONS: dict[str, Key] = {
    "source": lambda one: (source_name(one.source), figure_of(one)),
    "chip": lambda one: (one.chip, figure_of(one)),
    "class": lambda one: (one.cls, figure_of(one)),
    "kind": lambda one: (one.kind, figure_of(one)),
    "engine": lambda one: (judged.engine(one), figure_of(one)),
    "version": lambda one: (one.software, figure_of(one)),
    "quality": lambda one: (one.quality, figure_of(one)),
}
"""By what the tables of scores are grouped."""


def scores(records: Iterable[Record], key: Key) -> list[Score]:
    """Return the score of every group that `key` makes of `records`, by name."""
    groups: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return [score(name, groups[name]) for name in sorted(groups)]


def grouped(records: Sequence[Record]) -> list[tuple[str, list[Score]]]:
    """Return a title and the scores of each dimension that tells these records apart.

    Training cases name no engine and no version: a table of them would be all in one nameless row.
    """
    found = [(f"By {name}", scores(records, key)) for name, key in DIMENSIONS.items()]
    return [(title, parts) for title, parts in found if any(one.name[0] for one in parts)]


def score(name: tuple[str, ...], records: Sequence[Record]) -> Score:
    """Return the score of `records` together."""
    errors = np.array([one.error for one in records if one.error is not None])
    signed = [slowness(one) for one in records if one.error is not None]
    if not errors.size:
        return Score(name=name, ran=0, total=len(records), median=None, p90=None, bias=None)
    return Score(
        name=name,
        ran=int(errors.size),
        total=len(records),
        median=float(np.median(np.abs(errors))),
        p90=float(np.percentile(np.abs(errors), 90)),
        bias=float(np.mean(signed)),
    )


RATES = ("tokens_per_s_per_gpu", "examples_per_s")


def slowness(record: Record) -> float:
    """Return the error of a figure, and of a rate the error of its inverse.

    Times and rates of one group then lean the same way: + is slower than measured.
    """
    error = record.error or 0.0
    served = record.kind in judged.KINDS and figure_of(record) in judged.RATES
    return 1 / (1 + error) - 1 if (served or record.metric in RATES) and error > -1 else error


def headline(records: Sequence[Record]) -> list[Score]:
    """Return the scores that the project is judged by, of quality A and B."""
    good = [one for one in records if one.quality in ("A", "B")]

    def of(name: str, test: Callable[[Record], bool]) -> list[Score]:
        found = [one for one in good if test(one)]
        return [score((name,), found)] if found else []

    served = [
        score((name,), found)
        for name, test in judged.HEADS
        if (found := [r for r in records if r.quality in judged.GOOD and r.kind in judged.KINDS
                      and test(r)])
    ]  # fmt: skip
    return [
        *of("dense training steps", lambda r: _step(r) and r.cls == "dense"),
        *of("MoE steps, forced balance", lambda r: _step(r) and r.cls == "moe" and not natural(r)),
        *of("MoE steps, natural routing", lambda r: _step(r) and r.cls == "moe" and natural(r)),
        *of("memory", lambda r: what(r.metric) == "memory" and r.kind not in judged.KINDS),
        *of("layers and kernels", _small),
        *of("MoE over dense", lambda r: r.kind == "moe_vs_dense"),
        *of("one change at a time", lambda r: r.kind == "contrast"),
        *served,
    ]


def _small(record: Record) -> bool:
    return record.kind in ("moe_layer_fwd_bwd", "kernel") and what(record.metric) != "memory"


def _step(record: Record) -> bool:
    return record.kind == "train_step" and (record.metric in SPEEDS or not record.metric)


def natural(record: Record) -> bool:
    """Return whether the case routed by a real router rather than by force."""
    return any(text.startswith("natural routing") for text in record.assumed)


def right_signs(records: Iterable[Record]) -> tuple[int, int]:
    """Return how many contrasts go the measured way, and how many ran."""
    ran = [one for one in records if one.kind == "contrast" and one.predicted and one.measured]
    right = sum((one.predicted or 0) > 1 if (one.measured or 0) > 1 else (one.predicted or 0) < 1
                for one in ran)  # fmt: skip
    return right, len(ran)
