"""Simulates a resolved serving run, request by request."""

from dataclasses import dataclass

from moesim.cost.iteration import IterationTimes
from moesim.cost.serving.drafts import times_of as iteration_times
from moesim.sim.serving.cluster import serve_blind
from moesim.sim.serving.log import Log
from moesim.sim.serving.requests import NEVER, Requests
from moesim.sim.serving.rules import limits
from moesim.sim.serving.servers import mark
from moesim.study.serving.build import engine
from moesim.study.serving.fleet import ClusterEvent, ClusterFigures, Fleet, fleet, is_plain
from moesim.study.serving.gaps import Gaps, gaps
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
    logs: tuple[Log, ...] = ()
    """What each replica noted; attention data parallel ranks each for themselves."""
    events: tuple[ClusterEvent, ...] = ()
    """What came and went of replicas."""
    gaps: Gaps | None = None
    """Gaps between tokens of the same request."""


def simulate(run: Serving) -> ServingOutcome:
    """Return how the requests of `run` fare.

    What no memory has room for is a result, not an error. Raises ScenarioError where none of them
    can ever be served by the engine's own limits.
    """
    workload, seed = run.scenario.serving.workload, run.scenario.seed
    _check_file(run)
    asked = drawn(workload, seed, run.scenario.file_of)
    _check_blocks(run, asked)
    asked.logs = []
    whole: Fleet | None = None
    if is_plain(run):
        one = run.pools[0].engine
        server = engine(one, times_of(one), asked, one_by_one=run.step_by_step)
        mark(server, 0, 0)
        serve_workload(server, asked, workload, seed)
    else:
        whole = fleet(run, asked, times_of)
        if whole.is_blind and workload.sessions is None and workload.in_flight is None:
            serve_blind(whole.pools[0], asked)
        else:
            serve_workload(whole.loop, asked, workload, seed)
    _check_some(run, asked)
    as_clients_see(asked, host_time(run.deployment.software))
    return outcome(run, asked, whole)


def outcome(run: Serving, asked: Requests, whole: Fleet | None = None) -> ServingOutcome:
    """Return what requests that were served came to."""
    logs = tuple(asked.logs or ())
    warm_up = run.scenario.serving.workload.warm_up
    found = gaps(logs, asked.arrival[warm_up] if warm_up else 0)
    return ServingOutcome(
        run=run, requests=asked, logs=logs, gaps=found,
        cluster=whole.figures(run.pools) if whole else None,
        events=whole.events(run.pools) if whole else (),
        metrics=metrics(
            asked, warm_up, run.cluster.topology.devices, found, run.cluster.device,
            run.scenario.serving.slo,
        ),
    )  # fmt: skip


def times_of(one: Engine) -> IterationTimes:
    """Return what iterations of an engine take."""
    return iteration_times(one.deployment, host_time(one.deployment.software))


def _check_file(run: Serving) -> None:
    """Raise ScenarioError where the trace is not there."""
    trace = run.scenario.serving.workload.trace
    if trace is not None and not run.scenario.file_of(trace.file).exists():
        raise run.scenario.error(
            "serving.workload.trace.file",
            f"{run.scenario.file_of(trace.file)}: no such file; a name that is no whole path is "
            "looked for in the folder of the scenario",
        )


def _check_blocks(run: Serving, asked: Requests) -> None:
    """Raise ScenarioError where what requests begin with cannot be told by the cache's blocks."""
    for rules in (pool.engine.rules for pool in run.pools):
        if not rules.prefix_caching or asked.prefix is None:
            continue
        size, block = asked.prefix_block, rules.block_tokens
        if size % block and block % size:
            raise run.scenario.error(
                "serving.engine.block_tokens",
                f"prefix caching needs blocks that divide {size} tokens or are multiples of them, "
                f"as the beginnings of these prompts are told apart by so many; not {block}",
            )


def _check_some(run: Serving, asked: Requests) -> None:
    """Raise ScenarioError where the engine takes no request that the cache has room for."""
    if max(asked.finish[run.scenario.serving.workload.warm_up :]) != NEVER:
        return
    rules = [pool.engine.rules for pool in run.pools]
    shortest = min(map(sum, zip(asked.prompt, asked.allowed, strict=True)))
    if shortest > min(one.blocks * one.block_tokens for one in rules):
        return  # nothing fits: the result says what is missing
    whole, prompt = (min(found) for found in zip(*map(limits, rules), strict=True))
    raise run.scenario.error(
        "serving.workload",
        f"no request can be served: by the engine's limits a prompt may have {prompt} tokens, and "
        f"{whole} together with its output",
    )
