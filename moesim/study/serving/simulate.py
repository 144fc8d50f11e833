"""Simulates a resolved serving run, request by request."""

from dataclasses import dataclass

from moesim.cost.iteration import IterationTimes
from moesim.cost.serving.table import HostTime, iteration_times
from moesim.sim.serving.open_loop import serve, serve_closed
from moesim.sim.serving.requests import NEVER, Requests
from moesim.sim.serving.rules import limits
from moesim.study.serving.build import engine
from moesim.study.serving.fleet import ClusterFigures, is_plain, serve_fleet
from moesim.study.serving.metrics import Metrics, metrics
from moesim.study.serving.pools import Engine
from moesim.study.serving.resolve import Serving
from moesim.study.serving.workload import drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOutcome:
    """Everything that a serving run shows."""

    run: Serving
    requests: Requests
    metrics: Metrics
    cluster: ClusterFigures | None
    """What happened between replicas, where there are several or they change."""


def simulate(run: Serving) -> ServingOutcome:
    """Return how the requests of `run` fare.

    Raises ScenarioError where none of them can ever be served.
    """
    workload = run.scenario.serving.workload
    asked = drawn(workload, run.scenario.seed)
    figures = None
    if is_plain(run):
        _serve_plain(run, asked)
    else:
        figures = serve_fleet(run, asked, _times)
    if max(asked.finish[workload.warm_up :]) == NEVER:
        raise run.scenario.error(
            "serving.workload",
            f"no request can be served: prompt and output together may have "
            f"{limits(run.rules)[0]} tokens, by the cache and the engine's limits",
        )
    return ServingOutcome(
        run=run, requests=asked, cluster=figures,
        metrics=metrics(asked, workload.warm_up, run.cluster.topology.devices),
    )  # fmt: skip


def _times(engine: Engine) -> IterationTimes:
    return iteration_times(engine.deployment, HostTime())


def _serve_plain(run: Serving, asked: Requests) -> None:
    one = run.pools[0].engine
    replica = engine(one.deployment.cut, run.rules, _times(one), asked)
    in_flight = run.scenario.serving.workload.in_flight
    if in_flight is not None:
        serve_closed(replica, asked, in_flight)
    else:
        serve(replica, asked)
