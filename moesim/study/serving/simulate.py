"""Simulates a resolved serving run, request by request."""

from dataclasses import dataclass

from moesim.cost.serving.drafts import times_of
from moesim.cost.serving.table import HostTime
from moesim.sim.serving.open_loop import serve, serve_closed
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests
from moesim.study.serving.metrics import Metrics, metrics
from moesim.study.serving.resolve import Serving
from moesim.study.serving.workload import drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOutcome:
    """Everything that a serving run shows."""

    run: Serving
    requests: Requests
    metrics: Metrics


def simulate(run: Serving) -> ServingOutcome:
    """Return how the requests of `run` fare."""
    workload = run.scenario.serving.workload
    asked = drawn(workload, run.scenario.seed)
    times = times_of(run.deployment, HostTime())
    replica = Replica(run.rules, times, asked)
    if workload.in_flight is not None:
        serve_closed(replica, asked, workload.in_flight)
    else:
        serve(replica, asked)
    return ServingOutcome(
        run=run, requests=asked,
        metrics=metrics(asked, workload.warm_up, run.cluster.topology.devices),
    )  # fmt: skip
