"""A calibration from start to end: the grid, then where the curves are least certain."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from moesim.calibrate.bench import Effort
from moesim.calibrate.device import Target, conditions, find_target
from moesim.calibrate.fit import Fitted, doubt, fit, predict_one
from moesim.calibrate.grid import candidates, grid
from moesim.calibrate.meter import LocalMeter, Meter
from moesim.calibrate.ranks import Ranks, collective_grid
from moesim.calibrate.samples import Kept, Sample, load, make_room, save
from moesim.calibrate.suite import Case
from moesim.errors import CalibrationError

Progress = Callable[[str, float, float], None]
"""What is measured, seconds spent, seconds in all."""

FITTING_S = 4.0
"""Kept of the budget for fitting curves."""

_ROUND_S = 20.0
"""Between two choices of what to measure next."""

_STEADY_EVERY = 20
"""Cases between two measurements of the same product, which show a drifting clock."""

MOST_SPREAD, MOST_DRIFT, MOST_DISTURBED = 0.25, 0.3, 0.3
"""Median spread of the samples, drift of the product, and share of samples that other programs
disturbed, beyond which a device is noisy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asks of a calibration."""

    out: Path
    budget_s: float = 120.0
    device: str | None = None
    threads: int | None = None
    processes: int = 1
    name: str | None = None
    fresh: bool = False
    """Measure again, whatever an earlier run left."""
    accept_noise: bool = False
    """Fit a noisy device all the same; the curves say how wide their errors are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured, and what was made of it."""

    target: Target
    name: str
    samples: tuple[Sample, ...]
    fitted: Fitted
    spread: float
    """Median over the samples: half the distance between quartiles over the time."""
    conditions: str
    measured: int
    """Cases measured by this run; the others are an earlier run's."""


def samples_path(out: Path, name: str) -> Path:
    """Return where the raw samples of a calibration are."""
    return out / f"{name}-samples.parquet"


def calibrate(wish: Wish, progress: Progress | None = None) -> Calibration:
    """Measure the device for the budget, or what is left of it, and fit its curves.

    Raises CalibrationError for a device that is too noisy, and OSError at once where nothing can be
    written. Ctrl-C keeps what was measured.
    """
    begin = time.perf_counter()
    target = find_target(wish.device, wish.threads, wish.processes)
    name = wish.name or target.slug
    path = samples_path(wish.out, name)
    make_room(path)
    kept = Kept() if wish.fresh else load(path, target.fingerprint)
    session = _Session(target, kept, wish.budget_s, begin, progress)
    if session.left_s() > FITTING_S:
        try:
            with open_meter(target) as meter:
                session.run(meter)
        finally:
            if session.samples:
                save(path, target.fingerprint, session.kept())
    if not wish.accept_noise:
        refuse_noise(session.samples, session.steady)
    return Calibration(
        target=target, name=name, samples=tuple(session.samples),
        fitted=fit(target, session.samples),
        spread=spread_of(session.samples), conditions=conditions(target),
        measured=len(session.samples) - len(kept.samples),
    )  # fmt: skip


def spread_of(samples: Sequence[Sample]) -> float:
    """Return the median spread of samples."""
    return float(np.median([sample.timing.spread for sample in samples])) if samples else 0.0


def drift_of(steady: Sequence[float]) -> float:
    """Return how far the quartiles of the same product over time are apart."""
    if len(steady) < 4:
        return 0.0
    low, high = np.quantile(steady, (0.25, 0.75))
    return float(high / low - 1)


def refuse_noise(samples: Sequence[Sample], steady: Sequence[float]) -> None:
    """Raise CalibrationError where batches of one case, or one case over time, differ too much."""
    spread, drift = spread_of(samples), drift_of(steady)
    disturbed = sum(1 for sample in samples if sample.timing.disturbed) / max(1, len(samples))
    if spread <= MOST_SPREAD and drift <= MOST_DRIFT and disturbed <= MOST_DISTURBED:
        return
    raise CalibrationError(
        f"the device is too noisy to calibrate: repeated calls spread by {spread:.0%} (at most "
        f"{MOST_SPREAD:.0%}), the same product drifted by {drift:.0%} (at most {MOST_DRIFT:.0%}), "
        f"other programs held its processors in {disturbed:.0%} of the samples (at most "
        f"{MOST_DISTURBED:.0%}). Close other programs, wait until it is cool, fix its clock "
        "(nvidia-smi -lgc on NVIDIA), or on a busy CPU use --threads 1; then measure again with "
        "--fresh. Or accept wide intervals with --accept-noise"
    )


class _Session:
    """The samples of a run, and how much of its budget is spent."""

    def __init__(
        self, target: Target, kept: Kept, budget_s: float, begin: float,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        self.target = target
        self.samples = list(kept.samples)
        self.steady: list[float] = []
        self._before_s, self._budget_s, self._begin = kept.spent_s, budget_s, begin
        self._progress = progress

    def spent_s(self) -> float:
        return self._before_s + time.perf_counter() - self._begin

    def left_s(self) -> float:
        return self._budget_s - self.spent_s()

    def kept(self) -> Kept:
        return Kept(samples=tuple(self.samples), spent_s=self.spent_s())

    def run(self, meter: Meter) -> None:
        """Measure the grid, then rounds of what is least certain, until the budget is spent."""
        base = grid(self.target, in_one_call=meter.in_one_call)
        if self.target.processes > 1:
            base = [*base, *collective_grid(self.target)]
        self._measure(meter, self._missing(in_turn(base)), self._effort(base))
        self._again(meter, self._effort(base))
        rounds = 0
        while self.left_s() > FITTING_S + 1:
            rounds += 1
            chosen = self._least_certain(base, rounds)
            if not chosen:
                break
            self._measure(meter, chosen, self._effort(base), _ROUND_S)
            self._again(meter, self._effort(base))

    def _again(self, meter: Meter, effort: Effort) -> None:
        """Measure once more what other programs disturbed, for a part of the time left."""
        end = time.perf_counter() + self.left_s() / 3
        for number, sample in enumerate(self.samples):
            if self.left_s() < FITTING_S or time.perf_counter() > end:
                return
            if sample.timing.disturbed:
                taken = meter.measure(sample.case, effort)
                if taken.disturbed < sample.timing.disturbed:
                    self.samples[number] = replace(sample, timing=taken)

    def _effort(self, base: Sequence[Case]) -> Effort:
        """Return how long a case may take: the grid gets at most half of the budget."""
        share = self._budget_s / 2 / len(base)
        return Effort(limit_s=min(0.5, max(0.02, 0.4 * share)))

    def _missing(self, wanted: Sequence[Case]) -> list[Case]:
        known = {sample.case.key for sample in self.samples}
        return [one for one in wanted if one.key not in known]

    def _measure(
        self, meter: Meter, cases: Sequence[Case], effort: Effort, most_s: float = float("inf")
    ) -> None:
        begin = time.perf_counter()
        for number, one in enumerate(cases):
            if self.left_s() < FITTING_S or time.perf_counter() - begin > most_s:
                return
            if self._progress is not None:
                what = f"{one.operator} {one.variant} {one.dtype}".replace("  ", " ")
                self._progress(what, min(self.spent_s(), self._budget_s), self._budget_s)
            taken = meter.measure(one, effort)
            note = conditions(self.target) if number % _STEADY_EVERY == 0 else ""
            self.samples.append(Sample(one, taken, note))
            if number % _STEADY_EVERY == 0:
                self._check_clock(meter, effort)

    def _check_clock(self, meter: Meter, effort: Effort) -> None:
        """Measure the first product once more."""
        first = next((s.case for s in self.samples if s.case.operator == "gemm"), None)
        if first is not None:
            self.steady.append(meter.measure(first, replace(effort, limit_s=0.05)).seconds)

    def _least_certain(self, base: Sequence[Case], number: int) -> list[Case]:
        """Return new cases, those first whose time is least certain for what they cost."""
        fitted = fit(self.target, self.samples)
        drawn = self._missing(candidates(base, self.target, each=16, seed=number))
        worth = {one: _worth(fitted, one) for one in drawn if one.curve in fitted.curves}
        ranked = sorted(worth, key=lambda one: worth[one], reverse=True)
        taken: dict[tuple[str, str, str], int] = {}
        chosen = []
        for one in ranked:
            taken[one.curve] = taken.get(one.curve, 0) + 1
            if taken[one.curve] <= _PER_CURVE:
                chosen.append(one)
        return chosen


def in_turn(base: Sequence[Case]) -> list[Case]:
    """Return the cases so that each curve gets its first, then each its second, and so on."""
    seen: dict[tuple[str, str, str], int] = {}
    ranked = []
    for one in base:
        seen[one.curve] = seen.get(one.curve, 0) + 1
        ranked.append((seen[one.curve], one))
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])]


_PER_CURVE = 3
"""Cases of one curve in a round: the next fit may judge it otherwise."""

_CASE_S = 0.1
"""What a case costs besides its own time."""


def _worth(fitted: Fitted, one: Case) -> float:
    """Return doubt over cost; a longer operator weighs more in a step, by the root of its time."""
    seconds = predict_one(fitted, one)
    return doubt(fitted, one) * float(np.sqrt(seconds)) / (_CASE_S + 40 * seconds)


@contextmanager
def open_meter(target: Target) -> Iterator[Meter]:
    """Yield what measures on `target`; its processes end with the block."""
    if target.processes == 1:
        yield LocalMeter(target)
        return
    with Ranks(target) as ranks:
        yield ranks
