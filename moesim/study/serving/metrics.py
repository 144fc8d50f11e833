"""Latencies and throughput of finished requests, by vLLM's definitions."""

from dataclasses import dataclass

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.iteration import PS_PER_S
from moesim.sim.serving.requests import NEVER, Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """A latency over all requests, in seconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What people compare of a serving run."""

    finished: int
    rejected: int
    """Requests that could never be served: too long for the cache or for the engine's limits."""
    duration_s: float
    """From the first arrival to the last finish of those that count."""
    requests_per_s: float
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    output_tokens_per_s_per_device: float
    ttft_s: Quantiles
    """Arrival to first token, queueing included."""
    tpot_s: Quantiles
    """(last - first token) / (output tokens - 1), of requests with two tokens or more."""
    e2e_s: Quantiles
    preemptions: int


def metrics(asked: Requests, warm_up: int, devices: int) -> Metrics:
    """Return the metrics of all requests after the first `warm_up` that finished."""
    columns = {
        name: np.asarray(getattr(asked, name), dtype=np.float64)[warm_up:]
        for name in ("prompt", "output", "arrival", "first", "finish", "preemptions")
    }
    done = columns["finish"] != NEVER
    kept = {name: column[done] for name, column in columns.items()}
    arrival, first, finish = (kept[n] / PS_PER_S for n in ("arrival", "first", "finish"))
    duration = float(finish.max() - arrival.min())
    long = kept["output"] > 1
    output = float(kept["output"].sum())
    return Metrics(
        finished=int(done.sum()),
        rejected=int((~done).sum()),
        duration_s=duration,
        requests_per_s=int(done.sum()) / duration,
        prompt_tokens_per_s=float(kept["prompt"].sum()) / duration,
        output_tokens_per_s=output / duration,
        output_tokens_per_s_per_device=output / duration / devices,
        ttft_s=quantiles(first - arrival),
        tpot_s=quantiles((finish - first)[long] / (kept["output"][long] - 1)),
        e2e_s=quantiles(finish - arrival),
        preemptions=int(kept["preemptions"].sum()),
    )


def quantiles(values: Array) -> Quantiles:
    """Return mean and percentiles, NaN of nothing; linear between ranks as numpy's."""
    if not len(values):
        return Quantiles(**dict.fromkeys(("mean", "p50", "p90", "p95", "p99"), float("nan")))
    marks = np.percentile(values, [50, 90, 95, 99])
    named = dict(zip(("p50", "p90", "p95", "p99"), map(float, marks), strict=True))
    return Quantiles(mean=float(values.mean()), **named)
