"""Latencies, throughput, goodput, price and energy of finished requests, by vLLM's definitions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.iteration import PS_PER_S
from moesim.hardware.device import Device
from moesim.sim.serving.requests import NEVER, Requests
from moesim.spec.serving.slo import SloSpec
from moesim.study.serving.gap_ranks import mean_s, percentiles_s
from moesim.study.serving.gaps import Gaps

NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """A latency over all requests, in seconds; NaN of nothing."""

    mean: float = NAN
    p50: float = NAN
    p90: float = NAN
    p95: float = NAN
    p99: float = NAN


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What people compare of a serving run."""

    finished: int
    unfinished: int = 0
    """Requests that never got all of their tokens: too long for the cache or the engine."""
    duration_s: float
    """From the first arrival to the last finish of those that count."""
    requests_per_s: float
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    output_tokens_per_s_per_device: float
    output_tokens_per_s_per_user: float = NAN
    """Interactivity: 1 / median TPOT."""
    ttft_s: Quantiles
    """Arrival to first token, queueing included."""
    tpot_s: Quantiles
    """(last - first token) / (output tokens - 1), of requests with two tokens or more."""
    itl_s: Quantiles = Quantiles()
    """Gaps between tokens of the same request, those of all requests together."""
    e2e_s: Quantiles
    queue_s: Quantiles = Quantiles()
    """Arrival to the start of the first iteration that computes a part of the prompt."""
    preemptions: int
    goodput_requests_per_s: float | None = None
    """Requests per second that keep every limit of the SLO."""
    good_fraction: float | None = None
    """Those over all requests that count, finished or not."""
    meets_slo: bool | None = None
    usd_per_million_prompt_tokens: float | None = None
    """The price of all devices over the run, over the tokens of prompts alone."""
    usd_per_million_output_tokens: float | None = None
    """The same over the tokens put out alone."""
    energy_at_tdp_j_per_output_token: float | None = None
    """Thermal design power of all devices over the run, over the tokens put out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The requests that count and have finished, as columns; times in seconds."""

    prompt: Array
    output: Array
    arrival: Array
    scheduled: Array
    first: Array
    finish: Array
    preemptions: Array
    unfinished: int

    @property
    def ttft_s(self) -> Array:
        """Arrival to first token."""
        return self.first - self.arrival

    @property
    def e2e_s(self) -> Array:
        """Arrival to last token."""
        return self.finish - self.arrival

    @property
    def tpot_s(self) -> Array:
        """(last - first token) / (output tokens - 1), of requests with two tokens or more."""
        several = self.output > 1
        return (self.finish - self.first)[several] / (self.output[several] - 1)


def counted(asked: Requests, warm_up: int) -> Counted:
    """Return the requests after the first `warm_up`, as far as they finished."""
    names = ("prompt", "output", "arrival", "scheduled", "first", "finish", "preemptions")
    found = {n: np.asarray(getattr(asked, n), dtype=np.float64)[warm_up:] for n in names}
    done = found["finish"] != NEVER
    for name in ("arrival", "scheduled", "first", "finish"):
        found[name] = found[name] / PS_PER_S
    kept = {name: column[done] for name, column in found.items()}
    return Counted(**kept, unfinished=int((~done).sum()))


def metrics(
    asked: Requests, warm_up: int, devices: int, gaps: Gaps | None = None,
    device: Device | None = None, slo: SloSpec | None = None,
) -> Metrics:  # fmt: skip
    """Return the metrics of all requests after the first `warm_up` that finished."""
    of = counted(asked, warm_up)
    finished = len(of.finish)
    duration = float(of.finish.max() - of.arrival.min()) if finished else NAN
    per_s = 1 / duration if finished and duration > 0 else NAN
    output = float(of.output.sum()) * per_s
    prompt = float(of.prompt.sum()) * per_s
    tpot = quantiles(of.tpot_s)
    good = _good(of, slo)
    everybody = finished + of.unfinished
    return Metrics(
        finished=finished, unfinished=of.unfinished, duration_s=duration,
        requests_per_s=finished * per_s, prompt_tokens_per_s=prompt, output_tokens_per_s=output,
        output_tokens_per_s_per_device=output / devices,
        output_tokens_per_s_per_user=1 / tpot.p50 if tpot.p50 > 0 else NAN,
        ttft_s=quantiles(of.ttft_s), tpot_s=tpot, itl_s=of_gaps(gaps),
        e2e_s=quantiles(of.e2e_s), queue_s=quantiles(of.scheduled - of.arrival),
        preemptions=int(of.preemptions.sum()),
        goodput_requests_per_s=None if good is None or not finished else good * per_s,
        good_fraction=None if good is None else good / everybody,
        meets_slo=None if good is None or slo is None else good >= slo.attainment * everybody,
        usd_per_million_prompt_tokens=_usd_per_million(prompt, devices, device),
        usd_per_million_output_tokens=_usd_per_million(output, devices, device),
        energy_at_tdp_j_per_output_token=_energy(output, devices, device),
    )  # fmt: skip


def _good(of: Counted, slo: SloSpec | None) -> int | None:
    """Return how many requests keep all limits; those of one token have no TPOT to break."""
    if slo is None:
        return None
    kept = np.ones(len(of.finish), dtype=bool)
    if slo.ttft is not None:
        kept &= of.ttft_s <= slo.ttft
    if slo.e2e is not None:
        kept &= of.e2e_s <= slo.e2e
    if slo.tpot is not None:
        kept &= of.finish - of.first <= slo.tpot * (of.output - 1)
    return int(kept.sum())


def _usd_per_million(per_s: float, devices: int, device: Device | None) -> float | None:
    """Return devices x price per hour / 3600 / (tokens per second) x 10^6."""
    if device is None or device.price_usd_per_device_hour is None or not per_s > 0:
        return None
    return devices * device.price_usd_per_device_hour / 3600 / per_s * 1e6


def _energy(per_s: float, devices: int, device: Device | None) -> float | None:
    if device is None or not device.tdp_w or not per_s > 0:
        return None
    return devices * device.tdp_w / per_s


def of_gaps(gaps: Gaps | None) -> Quantiles:
    """Return mean and percentiles of gaps between tokens."""
    if gaps is None or not gaps.count:
        return Quantiles()
    p50, p90, p95, p99 = percentiles_s(gaps, [50, 90, 95, 99])
    return Quantiles(mean=mean_s(gaps), p50=p50, p90=p90, p95=p95, p99=p99)


def quantiles(values: Array | Sequence[float]) -> Quantiles:
    """Return mean and percentiles, NaN of nothing; linear between ranks as numpy's."""
    if not len(values):
        return Quantiles()
    marks = np.percentile(values, [50, 90, 95, 99])
    named = dict(zip(("p50", "p90", "p95", "p99"), map(float, marks), strict=True))
    return Quantiles(mean=float(np.mean(values)), **named)
