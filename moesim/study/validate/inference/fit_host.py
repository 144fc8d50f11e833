"""Fits the host times of an engine over all of its published serving curves and offline runs.

Three constants: time per iteration, per sequence of an iteration, and per request beside the
engine. Curves are simulated at every pair of times per sequence and per iteration on a grid; times
per iteration between two places by a straight line, as a sum of steps is where no device hides
them, and the time of a request adds to every time to the first token. The triple with the least
mean |ln(predicted / measured)| over TTFT below saturation, TPOT and offline throughput is taken,
all three alike. Of each case three rows count, evenly spaced. Left out model by model, the same
choice on the other cases says what the errors are on a model that was not seen. Never per model,
chip or case.
"""

from collections.abc import Callable, Iterable, Sequence
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

SEQUENCE_S = tuple(1e-6 * one for one in (0, 10, 20, 30, 45, 60, 80))
"""The grid: what schedule, inputs and token of a sequence take, mostly in Python; more than the
last would be a loop of thousands of steps."""
PLACES_S = tuple(1e-3 * one for one in (0, 1, 2, 4, 8, 12))
"""Times per iteration that are simulated, all of them where the device may hide the host."""
_ADDED_S = (0.0, 2e-3, 8e-3)
"""Those where it adds to the device."""
ITERATION_S = tuple(1e-6 * one for one in (*range(0, 2001, 100), *range(2500, 12_001, 500)))
REQUEST_S = tuple(1e-3 * one for one in (*range(0, 41, 2), *range(45, 201, 5)))
ROWS = 3
"""Rows of each case that count."""

_FIGURES = (
    ("ttft_ms", "ttft_mean_ms"), ("tpot_ms", "itl_mean_ms", "tpot_mean_ms"),
    ("output_tokens_per_s_per_gpu", "output_tokens_s_per_gpu", "total_output_tokens_per_s",
     "offline_tokens_s", "offline_samples_s"),
)  # fmt: skip
_KINDS = ("serving_curve", "offline_throughput")

Progress = Callable[[int, int], None]
Ratios = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeenCurve:
    """One row: what was predicted, by time per sequence and per iteration."""

    model: str
    ttft_ms: Ratios
    tpot_ms: Ratios
    unit_s: Ratios
    """Seconds for one of what offline throughput was measured in."""
    measured: tuple[float, float, float]
    """TTFT and TPOT in ms, and throughput; NaN for what was not measured."""


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
    rate_error: float
    rate_bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedHost:
    """The constants, and the median errors of TTFT, TPOT and throughput without and with them."""

    host: HostTime
    rows: int
    before: tuple[float, ...]
    after: tuple[float, ...]
    left_out: tuple[HostLeftOut, ...]


def of_engine(file: CaseFile, engine: str) -> list[Case]:
    """Return the serving curves and offline runs of quality A, A- and B of an engine."""
    found = []
    for case in file.cases:
        if case.kind not in _KINDS or case.text("quality") not in ("A", "A-", "B"):
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
    above = saturated(case, table) if case.kind == "serving_curve" else [False] * len(table)
    below = [row for row, over in zip(table, above, strict=True) if not over]
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
    offline = said.case.kind == "offline_throughput"
    measured = [_measured(row, names) for names in _FIGURES]
    for number_of in (0, 1) if offline else (2,):
        measured[number_of] = float("nan")
    if said.row.get("rate_rps") == "all" or np.isnan(measured).all():
        return []
    served = deployments.of(said)
    places = PLACES_S if served.on.hidden_host else _ADDED_S
    grid = np.array([
        [_predicted(said, served, HostTime(iteration_s=one, sequence_s=each)) for one in places]
        for each in SEQUENCE_S
    ])  # fmt: skip
    ttft, tpot, unit_s = (_at(PLACES_S, places, grid[..., one]) for one in range(3))
    return [
        SeenCurve(
            said.case.text("model"), ttft, tpot, unit_s, (measured[0], measured[1], measured[2])
        )
    ]


def _measured(row: Row, names: tuple[str, ...]) -> float:
    return next((one for name in names if (one := number(row.get(name)))), float("nan"))


def _predicted(said: Said, served: Served, host: HostTime) -> list[float]:
    times = with_host(served.times, host, hidden=served.on.hidden_host)
    run = simulated(replace(served, times=times, host=host), asked_of(said, served.replicas))
    found = predictions(run)
    itl = "itl_mean_ms" in said.row
    rate = next((name for name in _FIGURES[2] if name in said.row), _FIGURES[2][0])
    return [found["ttft_ms"], found["itl_ms" if itl else "tpot_ms"], 1.0 / found[rate]]


def with_host(times: TabledTimes, host: HostTime, *, hidden: bool) -> TabledTimes:
    """Return iterations that were priced without a host's time, with it; attention is shared."""
    if hidden:
        return replace(times, least_s=host.needs_s, known={}, leasts={})
    device = times.batch_s

    def batch_s(tokens: int, sequences: int, everyone: int) -> float:
        return device(tokens, sequences, everyone) + host.needs_s(sequences)

    return replace(times, batch_s=batch_s, known={}, batches={})


def fit_host(curves: list[SeenCurve]) -> FittedHost:
    """Return the constants that all curves choose together, and those left out model by model."""
    models = np.array([one.model for one in curves])
    logs = _logs(curves)
    best = _best(logs)
    return FittedHost(
        host=_host(best), rows=len(curves), before=_medians(logs, (0, 0, 0)),
        after=_medians(logs, best),
        left_out=tuple(_left_out(logs, models, model) for model in sorted(set(models.tolist()))),
    )  # fmt: skip


Logs = tuple[Ratios, Ratios, Ratios]


def _logs(curves: list[SeenCurve]) -> Logs:
    """Return ln(predicted / measured): by row, sequence and iteration; of TTFT by request too.

    Times of a request take no part in TPOT and throughput: there the last axis is one.
    """
    measured = np.array([one.measured for one in curves])[..., None, None, None]
    found = [
        _at(ITERATION_S, PLACES_S, np.stack(columns))[..., None]
        for columns in zip(*((one.ttft_ms, one.tpot_ms, one.unit_s) for one in curves), strict=True)
    ]
    later = found[0] + 1e3 * np.array(REQUEST_S)
    ttft, tpot, rate = (
        np.log(one / measured[:, kind]) for kind, one in enumerate((later, found[1], 1 / found[2]))
    )
    return ttft, tpot, rate


def _at(wanted: Sequence[float], places: Sequence[float], found: Ratios) -> Ratios:
    """Return what was found at `places`, the last axis, by straight lines at those wanted."""
    where = np.interp(wanted, places, np.arange(len(places)))
    lower = np.minimum(where.astype(int), len(places) - 2)
    between: Ratios = found[..., lower] + (found[..., lower + 1] - found[..., lower]) * (
        where - lower
    )
    return between


Place = tuple[int, int, int]


def _best(logs: Logs) -> Place:
    """Return the place of the least error; a figure that no row has takes no part."""
    total = sum(
        np.nanmean(np.abs(one), axis=0) for one in logs if not np.isnan(one).all()
    )  # fmt: skip
    sequence, iteration, request = np.unravel_index(int(np.argmin(total)), np.shape(total))
    return int(sequence), int(iteration), int(request)


def _host(place: Place) -> HostTime:
    return HostTime(
        sequence_s=SEQUENCE_S[place[0]],
        iteration_s=ITERATION_S[place[1]],
        request_s=REQUEST_S[place[2]],
    )


def _errors(logs: Logs, place: Place, mine: NDArray[np.bool_] | None = None) -> list[Ratios]:
    """Return the relative errors of TTFT, TPOT and throughput at a place, of rows that have any."""
    sequence, iteration, request = place
    found = []
    for one in logs:
        at = one[:, sequence, iteration, request if one.shape[-1] > 1 else 0]
        at = at if mine is None else at[mine]
        found.append(np.expm1(at[~np.isnan(at)]))
    return found


def _medians(logs: Logs, place: Place, mine: NDArray[np.bool_] | None = None) -> tuple[float, ...]:
    return tuple(
        float(np.median(np.abs(one))) if len(one) else float("nan")
        for one in _errors(logs, place, mine)
    )


def _left_out(logs: Logs, models: NDArray[np.str_], model: str) -> HostLeftOut:
    mine = models == model
    ttft, tpot, rate = logs
    place = _best(logs if mine.all() else (ttft[~mine], tpot[~mine], rate[~mine]))
    errors = _medians(logs, place, mine)
    biases = [
        float(np.mean(one)) if len(one) else float("nan") for one in _errors(logs, place, mine)
    ]
    return HostLeftOut(
        model=model, rows=int(mine.sum()), host=_host(place),
        ttft_error=errors[0], ttft_bias=biases[0], tpot_error=errors[1], tpot_bias=biases[1],
        rate_error=errors[2], rate_bias=biases[2],
    )  # fmt: skip
