"""Fits what no measurement of an operator can see: the host's time, over all cases of a trainer.

Two constants: host time per kernel and synchronisation per layer of dropless experts. Every pair on
a grid counts for every whole step: times per kernel are simulated, and stops, which stand outside
of the maximum in moesim/cost/host.py, add in proportion to one such run. The pair with the least
mean |ln(predicted / measured)| is taken. Left out model by model, the same choice on the other
cases says what the errors are on a model that was not seen. Never per model, chip or case. Single
layers with experts take no part: they say whether the constants hold outside of steps.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moesim.errors import MoesimError
from moesim.spec.cases import Case, CaseFile
from moesim.study.resolve import Training
from moesim.study.routing import moe_layers
from moesim.study.simulate import simulate
from moesim.study.validate.figures import compared_figures
from moesim.study.validate.layer import expert_block, layers_of_run, pass_times_ms
from moesim.study.validate.record import Record, blank
from moesim.study.validate.skipped import SkippedError
from moesim.study.validate.training_case import Mapped, map_training, software_name
from moesim.study.validate.training_figures import compared, speed_of

PER_KERNEL_S = tuple(1e-6 * value for value in (0, 20, 40, 60, 80, 110))
SYNC_S = tuple(1e-6 * value for value in (0, 25, 50, 100, 150, 200, 300, 400, 600, 800, 1200))
"""The grid: what launches from Python take, and what a copy to the host and back may cost."""

Progress = Callable[[int, int], None]
Ratios = NDArray[np.float64]
_LAYER = "moe_layer_fwd_bwd"


@dataclass(frozen=True, slots=True)
class Seen:
    """One case: ln(predicted time / measured time) at each place of the grid."""

    case: str
    model: str
    ratios: Ratios
    layer: bool = False
    """Whether it is a single layer, not a whole step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What the cases of one model show under the constants that the others chose."""

    model: str
    cases: int
    per_kernel_s: float
    sync_s: float
    median_error: float
    bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Median errors of some cases at three places of the grid."""

    cases: int
    without: float
    """Without any host time."""
    present: float
    """With the constants that the profile has now, rounded to the grid."""
    fitted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The constants, and the errors of steps and of single layers."""

    per_kernel_s: float
    sync_s: float
    steps: Errors
    layers: Errors | None
    """None without a case of a single layer."""
    left_out: tuple[LeftOut, ...]
    """Empty where all cases are of one model."""
    median_left_out: float
    """Of all steps, each under the constants that the other models chose."""

    @property
    def at_end(self) -> bool:
        """Tell whether a constant is the last of its grid, and so might be larger still."""
        return self.per_kernel_s == PER_KERNEL_S[-1] or self.sync_s == SYNC_S[-1]


def of_trainer(file: CaseFile, software: str) -> list[Case]:
    """Return the cases of quality A and B of steps and layers whose software profile is `software`.

    A case that says a speed counts, one that says memory alone does not.
    """
    return [
        case
        for case in file.cases
        if case.text("quality") in ("A", "B")
        and (case.kind == _LAYER or (case.kind == "train_step" and speed_of(case) is not None))
        and software_name(case) == software
    ]


def seen(
    file: CaseFile, cases: Iterable[Case], *, workers: int, progress: Progress | None = None
) -> list[Seen]:
    """Return the errors of `cases` over the whole grid; those that cannot be run are left out."""
    chosen = list(cases)
    small = replace(file, cases=(), pairs=(), contrasts=())
    found: list[Seen] = []
    with ProcessPoolExecutor(workers) as pool:
        each = pool.map(partial(_seen, file=small), chosen, chunksize=2)
        for done, one in enumerate(each, start=1):
            found += [] if one is None else [one]
            if progress is not None:
                progress(done, len(chosen))
    return found


def _seen(case: Case, file: CaseFile) -> Seen | None:
    try:
        mapped = map_training(case, file)
        busy = _busy(case, mapped)
        stopped = 0.0
        if moe_layers(mapped.run):  # dense layers never stop
            stopped = _time(case, mapped, 0.0, SYNC_S[-1]) - busy[0]
    except (SkippedError, MoesimError):
        return None
    times = busy[:, None] + stopped * np.array(SYNC_S) / SYNC_S[-1]
    return Seen(case.id, case.text("model"), np.log(times), case.kind == _LAYER)


def _busy(case: Case, mapped: Mapped) -> Ratios:
    """Return the times for all hosts; where the slowest is fast enough, so are the others."""
    first, last = (_time(case, mapped, one, 0.0) for one in (PER_KERNEL_S[0], PER_KERNEL_S[-1]))
    if first == last:
        return np.full(len(PER_KERNEL_S), first)
    between = [_time(case, mapped, one, 0.0) for one in PER_KERNEL_S[1:-1]]
    return np.array([first, *between, last])


def _time(case: Case, mapped: Mapped, per_kernel_s: float, sync_s: float) -> float:
    """Return predicted over measured time."""
    host = replace(mapped.run.software, host_per_kernel_s=per_kernel_s, host_sync_s=sync_s)
    run = replace(mapped.run, software=host)
    if case.kind == _LAYER:
        return _layer_time(case, run)
    record = compared(case, replace(mapped, run=run), simulate(run), blank(case))[0]
    predicted, measured = _figures(record)
    return predicted / measured if record.metric == "step_time_s" else measured / predicted


def _layer_time(case: Case, run: Training) -> float:
    piece = layers_of_run(run)
    records = compared_figures(case, pass_times_ms(piece, expert_block(piece)), blank(case))
    if not records:
        raise SkippedError("no time of a pass was measured")
    predicted, measured = zip(*map(_figures, records), strict=True)
    return float(sum(predicted) / sum(measured))


def _figures(record: Record) -> tuple[float, float]:
    assert record.predicted is not None
    assert record.measured is not None
    return record.predicted, record.measured


def fit_software(cases: list[Seen], present: tuple[float, float] = (0.0, 0.0)) -> Fitted:
    """Return the constants that all steps choose together, and those left out model by model.

    `present` are the constants that the profile has now, to compare with.
    """
    steps = [one for one in cases if not one.layer]
    every = np.stack([one.ratios for one in steps])
    best, now = _best(every), (_near(PER_KERNEL_S, present[0]), _near(SYNC_S, present[1]))
    names = np.array([one.model for one in steps])
    models = sorted(set(names.tolist()))
    own = np.concatenate([_others_choose(every, names == model)[0] for model in models])
    layers = [one.ratios for one in cases if one.layer]
    return Fitted(
        per_kernel_s=PER_KERNEL_S[best[0]],
        sync_s=SYNC_S[best[1]],
        steps=_errors(every, now, best),
        layers=_errors(np.stack(layers), now, best) if layers else None,
        left_out=tuple(_left_out(every, names == model, model) for model in models),
        median_left_out=_median(own),
    )


def _errors(every: Ratios, now: tuple[int, int], best: tuple[int, int]) -> Errors:
    without, present, fitted = (
        _median(every[:, row, column]) for row, column in ((0, 0), now, best)
    )
    return Errors(cases=len(every), without=without, present=present, fitted=fitted)


def _others_choose(every: Ratios, mine: NDArray[np.bool_]) -> tuple[Ratios, int, int]:
    """Return the errors of some cases at the place that the others choose, and the place."""
    row, column = _best(every if mine.all() else every[~mine])
    return every[mine, row, column], row, column


def _left_out(every: Ratios, mine: NDArray[np.bool_], model: str) -> LeftOut:
    own, row, column = _others_choose(every, mine)
    return LeftOut(
        model=model,
        cases=int(mine.sum()),
        per_kernel_s=PER_KERNEL_S[row],
        sync_s=SYNC_S[column],
        median_error=_median(own),
        bias=float(np.mean(np.exp(own) - 1)),
    )


def _best(ratios: Ratios) -> tuple[int, int]:
    mean = np.abs(ratios).mean(axis=0)
    row, column = np.unravel_index(int(mean.argmin()), mean.shape)
    return int(row), int(column)


def _near(grid: tuple[float, ...], value: float) -> int:
    return int(np.abs(np.array(grid) - value).argmin())


def _median(ratios: Ratios) -> float:
    return float(np.median(np.abs(np.exp(ratios) - 1)))
