"""Fits what no measurement of an operator can see: the host's time, over all cases of a trainer.

Two constants: host time per kernel and synchronisation per layer of dropless experts. Every pair on
a grid counts for every case: times per kernel are simulated, and stops, which stand outside of the
maximum in moesim/cost/host.py, add in proportion to one such run. The pair with the least mean
|ln(predicted / measured)| is taken. Left out model by model, the same choice on the other cases
says what the errors are on a model that was not seen. Never per model, chip or case.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moesim.errors import MoesimError
from moesim.spec.cases import Case, CaseFile
from moesim.study.routing import moe_layers
from moesim.study.simulate import simulate
from moesim.study.validate.record import blank
from moesim.study.validate.skipped import SkippedError
from moesim.study.validate.trainers import trainer_of
from moesim.study.validate.training_case import Mapped, map_training
from moesim.study.validate.training_figures import compared, speed_of

PER_KERNEL_S = tuple(1e-6 * value for value in (0, 20, 40, 60, 80, 110))
SYNC_S = tuple(1e-6 * value for value in (0, 25, 50, 100, 150, 200, 300, 400, 600, 800, 1200))
"""The grid: what launches from Python take, and what a copy to the host and back may cost."""

Progress = Callable[[int, int], None]
Ratios = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """One case: ln(predicted time / measured time) at each place of the grid."""

    case: str
    model: str
    ratios: Ratios


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
class Fitted:
    """The constants, and the errors without and with them."""

    per_kernel_s: float
    sync_s: float
    cases: int
    median_before: float
    median_after: float
    left_out: tuple[LeftOut, ...]

    @property
    def median_left_out(self) -> float:
        """Mean over cases of the median error of their model, which took no part in the fit."""
        return float(
            np.average(
                [one.median_error for one in self.left_out],
                weights=[one.cases for one in self.left_out],
            )
        )


def of_trainer(file: CaseFile, family: str) -> list[Case]:
    """Return the cases of quality A and B with a speed that a trainer of `family` was timed in."""
    return [
        case
        for case in file.cases
        if case.kind == "train_step"
        and case.text("quality") in ("A", "B")
        and speed_of(case) is not None
        and ((trainer := trainer_of(case)) is None or trainer.family == family)
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
    return Seen(case.id, case.text("model"), np.log(times))


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
    changed = replace(mapped, run=replace(mapped.run, software=host))
    record = compared(case, changed, simulate(changed.run), blank(case))[0]
    assert record.predicted is not None
    assert record.measured is not None
    ratio = record.predicted / record.measured
    return ratio if record.metric == "step_time_s" else 1.0 / ratio


def fit_software(cases: list[Seen]) -> Fitted:
    """Return the constants that all `cases` choose together, and those left out model by model."""
    every = np.stack([one.ratios for one in cases])
    row, column = _best(every)
    names = np.array([one.model for one in cases])
    return Fitted(
        per_kernel_s=PER_KERNEL_S[row],
        sync_s=SYNC_S[column],
        cases=len(cases),
        median_before=_median(every[:, 0, 0]),
        median_after=_median(every[:, row, column]),
        left_out=tuple(_left_out(every, names, model) for model in sorted(set(names.tolist()))),
    )


def _left_out(every: Ratios, names: NDArray[np.str_], model: str) -> LeftOut:
    mine = names == model
    row, column = _best(every[~mine]) if not mine.all() else _best(every)
    own = every[mine, row, column]
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


def _median(ratios: Ratios) -> float:
    return float(np.median(np.abs(np.exp(ratios) - 1)))
