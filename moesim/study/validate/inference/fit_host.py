"""Fits the host times of an engine over all of its published serving curves.

Three constants: time per iteration, per sequence of an iteration, and per request beside the
engine. Curves are simulated at every pair of times per sequence and per iteration on a grid; times
per iteration between two places by a straight line, as a sum of steps is where no device hides
them, and the time of a request adds to every time to the first token. The triple with the least
mean |ln(predicted / measured)| over TTFT below saturation and TPOT is taken, both alike. Of each
curve three rows count, evenly spaced. Left out model by model, the same choice on the other cases
says what the errors are on a model that was not seen. Never per model, chip or case.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moesim.cost.iteration import TabledTimes
from moesim.cost.serving.table import HostTime
from moesim.errors import MoesimError
from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.figures import number
from moesim.study.validate.inference.asked import asked_of
from moesim.study.validate.inference.deployment import Deployments, Served
from moesim.study.validate.inference.saturated import saturated
from moesim.study.validate.inference.simulated import predictions, simulated
from moesim.study.validate.inference.words import Row, Said, engine_of, rows
from moesim.study.validate.skipped import SkippedError

SEQUENCE_S = tuple(1e-6 * one for one in (0, 5, 10, 15, 20, 30, 40, 50, 65, 80, 100))
"""The grid: what schedule, inputs and token of a sequence take, mostly in Python."""
PLACES_S = tuple(1e-3 * one for one in (0, 0.5, 1, 2, 4, 8, 12))
"""Times per iteration that are simulated."""
ITERATION_S = tuple(1e-6 * one for one in (*range(0, 2001, 100), *range(2500, 12_001, 500)))
REQUEST_S = tuple(1e-3 * one for one in (*range(0, 41, 2), *range(45, 201, 5)))
ROWS = 3
"""Rows of each curve that count."""

_TIMES = (("ttft_ms", "ttft_mean_ms"), ("tpot_ms", "itl_mean_ms", "tpot_mean_ms"))

Progress = Callable[[int, int], None]
Ratios = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeenCurve:
    """One row: what was predicted, by time per sequence and per iteration."""

    model: str
    ttft_ms: Ratios
    tpot_ms: Ratios
    measured: tuple[float, float]
    """TTFT and TPOT in ms; NaN for what was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLeftOut:
    """What the rows of one model show under the constants that the others chose."""

    model: str
    rows: int
    host: HostTime
    ttft_error: float
    ttft_bias: float
    tpot_error: float
    tpot_bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedHost:
    """The constants, and the median errors of TTFT and TPOT without and with them."""

    host: HostTime
    rows: int
    before: tuple[float, float]
    after: tuple[float, float]
    left_out: tuple[HostLeftOut, ...]


def of_engine(file: CaseFile, engine: str) -> list[Case]:
    """Return the serving curves of quality A, A- and B of an engine."""
    found = []
    for case in file.cases:
        if case.kind != "serving_curve" or case.text("quality") not in ("A", "A-", "B"):
            continue
        try:
            if engine_of(Said(case)) == engine:
                found.append(case)
        except SkippedError:
            continue
    return found


def seen_curves(
    file: CaseFile, cases: Iterable[Case], *, workers: int, progress: Progress | None = None
) -> list[SeenCurve]:
    """Return the rows of `cases` over the whole grid; those that cannot be run are left out."""
    chosen = list(cases)
    small = replace(file, cases=(), pairs=(), contrasts=(), ratios=())
    found: list[SeenCurve] = []
    with ProcessPoolExecutor(workers) as pool:
        each = pool.map(partial(_seen, file=small), chosen, chunksize=1)
        for done, some in enumerate(each, start=1):
            found += some
            if progress is not None:
                progress(done, len(chosen))
    return found


def _seen(case: Case, file: CaseFile) -> list[SeenCurve]:
    deployments = Deployments(file, host=HostTime())
    table = rows(case)
    below = [row for row, over in zip(table, saturated(case, table), strict=True) if not over]
    places = sorted({round(one) for one in np.linspace(0, len(below) - 1, ROWS)} if below else ())
    found = []
    for place in places:
        said = Said(case, below[place])
        try:
            found += _of_row(said, below[place], deployments)
        except (SkippedError, MoesimError):
            continue
    return found


def _of_row(said: Said, row: Row, deployments: Deployments) -> list[SeenCurve]:
    measured = tuple(_measured(row, names) for names in _TIMES)
    if said.row.get("rate_rps") == "all" or np.isnan(measured).all():
        return []
    served = deployments.of(said)
    grid = np.array([[_times(said, served, HostTime(iteration_s=one, sequence_s=each))
                      for one in PLACES_S] for each in SEQUENCE_S])  # fmt: skip
    return [
        SeenCurve(said.case.text("model"), grid[..., 0], grid[..., 1], (measured[0], measured[1]))
    ]


def _measured(row: Row, names: tuple[str, ...]) -> float:
    return next((one for name in names if (one := number(row.get(name)))), float("nan"))


def _times(said: Said, served: Served, host: HostTime) -> list[float]:
    times = with_host(served.times, host, hidden=served.on.hidden_host)
    run = simulated(replace(served, times=times, host=host), asked_of(said, served.replicas))
    found = predictions(run)
    itl = "itl_mean_ms" in said.row
    return [found["ttft_ms"], found["itl_ms" if itl else "tpot_ms"]]


def with_host(times: TabledTimes, host: HostTime, *, hidden: bool) -> TabledTimes:
    """Return iterations that were priced without a host's time, with it; attention is shared."""
    if hidden:
        return replace(times, least_s=host.needs_s, known={})
    device = times.batch_s

    def batch_s(tokens: int, sequences: int, everyone: int) -> float:
        return device(tokens, sequences, everyone) + host.needs_s(sequences)

    return replace(times, batch_s=batch_s, known={}, batches={})


def fit_host(curves: list[SeenCurve]) -> FittedHost:
    """Return the constants that all curves choose together, and those left out model by model."""
    models = np.array([one.model for one in curves])
    ttft, tpot = _logs(curves)
    best = _best(ttft, tpot)
    return FittedHost(
        host=_host(best), rows=len(curves), before=_medians(ttft, tpot, (0, 0, 0)),
        after=_medians(ttft, tpot, best),
        left_out=tuple(
            _left_out(ttft, tpot, models, model) for model in sorted(set(models.tolist()))
        ),
    )  # fmt: skip


def _logs(curves: list[SeenCurve]) -> tuple[Ratios, Ratios]:
    """Return ln(predicted / measured): by row, sequence and iteration; of TTFT by request too."""
    first = _between(np.stack([one.ttft_ms for one in curves]))
    each = _between(np.stack([one.tpot_ms for one in curves]))
    measured = np.array([one.measured for one in curves])
    later = first[..., None] + 1e3 * np.array(REQUEST_S)
    return (
        np.log(later / measured[:, 0, None, None, None]),
        np.log(each / measured[:, 1, None, None]),
    )


def _between(found: Ratios) -> Ratios:
    """Return what was found at `PLACES_S`, the last axis, at all of ITERATION_S."""
    places = np.interp(ITERATION_S, PLACES_S, np.arange(len(PLACES_S)))
    lower = np.minimum(places.astype(int), len(PLACES_S) - 2)
    between: Ratios = found[..., lower] + (found[..., lower + 1] - found[..., lower]) * (
        places - lower
    )
    return between


Place = tuple[int, int, int]


def _best(ttft: Ratios, tpot: Ratios) -> Place:
    total = np.nanmean(np.abs(ttft), axis=0) + np.nanmean(np.abs(tpot), axis=0)[..., None]
    sequence, iteration, request = np.unravel_index(int(total.argmin()), total.shape)
    return int(sequence), int(iteration), int(request)


def _host(place: Place) -> HostTime:
    return HostTime(
        sequence_s=SEQUENCE_S[place[0]],
        iteration_s=ITERATION_S[place[1]],
        request_s=REQUEST_S[place[2]],
    )


def _medians(ttft: Ratios, tpot: Ratios, place: Place) -> tuple[float, float]:
    first, each = ttft[(slice(None), *place)], tpot[(slice(None), *place[:2])]
    return tuple(float(np.nanmedian(np.abs(np.exp(a) - 1))) for a in (first, each))  # type: ignore[return-value]


def _left_out(ttft: Ratios, tpot: Ratios, models: NDArray[np.str_], model: str) -> HostLeftOut:
    mine = models == model
    place = _best(ttft[~mine], tpot[~mine]) if not mine.all() else _best(ttft, tpot)
    first, each = ttft[(mine, *place)], tpot[(mine, *place[:2])]
    errors = _medians(ttft[mine], tpot[mine], place)
    return HostLeftOut(
        model=model, rows=int(mine.sum()), host=_host(place),
        ttft_error=errors[0], ttft_bias=float(np.nanmean(np.exp(first) - 1)),
        tpot_error=errors[1], tpot_bias=float(np.nanmean(np.exp(each) - 1)),
    )  # fmt: skip
