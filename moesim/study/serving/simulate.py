"""Simulates a resolved serving run, request by request."""

from dataclasses import dataclass

from moesim.cost.serving.table import iteration_times
from moesim.sim.serving.requests import Requests
from moesim.study.serving.build import engine
from moesim.study.serving.host import as_clients_see, host_time
from moesim.study.serving.metrics import Metrics, metrics
from moesim.study.serving.resolve import Serving
from moesim.study.serving.workload import drawn, serve_workload


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOutcome:
    """Everything that a serving run shows."""

    run: Serving
    requests: Requests
    metrics: Metrics


def simulate(run: Serving) -> ServingOutcome:
    """Return how the requests of `run` fare."""
    workload = run.scenario.serving.workload
    asked = drawn(workload, run.scenario.seed, run.scenario.file_of)
    host = host_time(run.deployment.software)
    times = iteration_times(run.deployment, host)
    serve_workload(engine(run, times, asked), asked, workload, run.scenario.seed)
    as_clients_see(asked, host)
    return ServingOutcome(
        run=run, requests=asked,
        metrics=metrics(asked, workload.warm_up, run.cluster.topology.devices),
    )  # fmt: skip
