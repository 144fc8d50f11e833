"""Throughput against interactivity: a closed loop of the run's mean request at each concurrency."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from moesim.spec.serving.lengths import LengthsSpec
from moesim.spec.serving.workload import WorkloadSpec
from moesim.study.serving.resolve import Serving
from moesim.study.serving.simulate import ServingOutcome, simulate

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Requests in flight per replica."""

_ROUNDS = 3
"""Requests per place: the first and the last round are not alone."""


MOST = 20_000
"""Requests of a point at most: large fleets stop there, so that the curve never takes longer than a
run of many requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One concurrency."""

    concurrency: int
    output_tokens_per_s_per_device: float
    output_tokens_per_s_per_user: float
    """1 / median TPOT."""
    ttft_p50_s: float
    tpot_p50_s: float


def curve(outcome: ServingOutcome) -> tuple[Point, ...]:
    """Return the points of a run's deployment, up to where its engine takes no more."""
    run = outcome.run
    asked = outcome.requests
    prompt = max(1, round(float(np.mean(asked.prompt))))
    output = max(1, round(float(np.mean(asked.output))))
    if output < 2 or not run.rules.blocks:
        return ()
    return tuple(_points(run, prompt, output))


def _points(run: Serving, prompt: int, output: int) -> Iterator[Point]:
    for places in CONCURRENCIES:
        if places > run.rules.max_sequences:
            return
        in_flight = places * run.replicas
        if _ROUNDS * in_flight > MOST:
            return
        workload = WorkloadSpec(
            arrivals="closed", in_flight=in_flight, requests=_ROUNDS * in_flight,
            prompt=_fixed(prompt), output=_fixed(output),
        )  # fmt: skip
        serving = run.scenario.serving.model_copy(update={"workload": workload})
        scenario = run.scenario.model_copy(update={"serving": serving})
        found = simulate(replace(run, scenario=scenario)).metrics
        if found.unfinished:
            return
        yield Point(
            concurrency=in_flight,
            output_tokens_per_s_per_device=found.output_tokens_per_s_per_device,
            output_tokens_per_s_per_user=found.output_tokens_per_s_per_user,
            ttft_p50_s=found.ttft_s.p50, tpot_p50_s=found.tpot_s.p50,
        )  # fmt: skip


def _fixed(tokens: int) -> LengthsSpec:
    return LengthsSpec(law="fixed", mean=float(tokens))
