"""Simulates a resolved serving run, request by request."""

from dataclasses import dataclass

from moesim.cost.iteration import IterationTimes
from moesim.cost.serving.table import iteration_times
from moesim.sim.serving.cluster import serve_blind
from moesim.sim.serving.requests import NEVER, Requests
from moesim.sim.serving.rules import limits
from moesim.study.serving.build import engine
from moesim.study.serving.fleet import ClusterFigures, Fleet, fleet, is_plain
from moesim.study.serving.host import as_clients_see, host_time
from moesim.study.serving.metrics import Metrics, metrics
from moesim.study.serving.pools import Engine
from moesim.study.serving.resolve import Serving
from moesim.study.serving.workload import drawn, serve_workload


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
    workload, seed = run.scenario.serving.workload, run.scenario.seed
    asked = drawn(workload, seed, run.scenario.file_of)
    whole: Fleet | None = None
    if is_plain(run):
        one = run.pools[0].engine
        serve_workload(engine(one, _times(one), asked), asked, workload, seed)
    else:
        whole = fleet(run, asked, _times)
        if whole.is_blind and workload.sessions is None and workload.in_flight is None:
            serve_blind(whole.pools[0], asked)
        else:
            serve_workload(whole.loop, asked, workload, seed)
    _check_some(run, asked)
    as_clients_see(asked, host_time(run.deployment.software))
    return ServingOutcome(
        run=run, requests=asked, cluster=whole.figures() if whole else None,
        metrics=metrics(asked, workload.warm_up, run.cluster.topology.devices),
    )  # fmt: skip


def _times(of: Engine) -> IterationTimes:
    return iteration_times(of.deployment, host_time(of.deployment.software))


def _check_some(run: Serving, asked: Requests) -> None:
    if max(asked.finish[run.scenario.serving.workload.warm_up :]) == NEVER:
        whole, prompt = limits(run.rules)
        raise run.scenario.error(
            "serving.workload",
            f"no request can be served: by the cache and the engine's limits a prompt may have "
            f"{prompt} tokens, and {whole} together with its output",
        )
