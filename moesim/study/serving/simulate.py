"""Simulates a resolved serving run, request by request."""

from dataclasses import dataclass

from moesim.cost.serving.table import HostTime, iteration_times
from moesim.sim.serving.log import Log
from moesim.sim.serving.open_loop import serve, serve_closed
from moesim.sim.serving.requests import Requests
from moesim.study.serving.build import engine
from moesim.study.serving.gaps import Gaps, gaps
from moesim.study.serving.metrics import Metrics, metrics
from moesim.study.serving.resolve import Serving
from moesim.study.serving.workload import drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOutcome:
    """Everything that a serving run shows."""

    run: Serving
    requests: Requests
    metrics: Metrics
    logs: tuple[Log, ...] = ()
    """What each replica noted; attention data parallel ranks each for themselves."""
    gaps: Gaps | None = None
    """Gaps between tokens of the same request."""


def simulate(run: Serving) -> ServingOutcome:
    """Return how the requests of `run` fare."""
    workload = run.scenario.serving.workload
    asked = drawn(workload, run.scenario.seed)
    times = iteration_times(run.deployment, HostTime())
    asked.logs = []
    replica = engine(run, times, asked)
    if workload.in_flight is not None:
        serve_closed(replica, asked, workload.in_flight)
    else:
        serve(replica, asked)
    return outcome(run, asked)


def outcome(run: Serving, asked: Requests) -> ServingOutcome:
    """Return what requests that were served came to."""
    logs = tuple(asked.logs or ())
    warm_up = run.scenario.serving.workload.warm_up
    found = gaps(logs, asked.arrival[warm_up] if warm_up else 0)
    return ServingOutcome(
        run=run, requests=asked, logs=logs, gaps=found,
        metrics=metrics(
            asked, warm_up, run.cluster.topology.devices, found, run.cluster.device,
            run.scenario.serving.slo,
        ),
    )  # fmt: skip
