"""Simulates the pools of a serving run: replicas, routers, transfers, failures, scaling."""

from collections.abc import Callable
from dataclasses import dataclass

from moesim import rng
from moesim.cost.iteration import PS_PER_S, IterationTimes
from moesim.cost.serving.transfer import group_devices, moved_bytes_per_token, ports
from moesim.sim.serving.changes import Changes, Drain, FailureRules, ScaleRules
from moesim.sim.serving.cluster import BLIND, Loop, Pool
from moesim.sim.serving.disaggregation import Handover, Route, prompts_only
from moesim.sim.serving.links import Links
from moesim.sim.serving.requests import Requests, ps
from moesim.sim.serving.rules import limits
from moesim.sim.serving.servers import Server
from moesim.spec.serving.cluster import ServingClusterSpec, TransferSpec
from moesim.study.serving.build import engine
from moesim.study.serving.pools import Engine, PoolRun
from moesim.study.serving.resolve import Serving

Times = Callable[[Engine], IterationTimes]
"""What iterations of an engine take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFigures:
    """What happened between replicas."""

    failures: int
    recomputed: int
    """Requests whose cache was lost with a replica, as often as it was."""
    transfers: int
    """Caches moved from prefill to decode."""
    transfer_s: float
    """From the first token to the arrival of the cache, on average; waiting for room included."""
    replica_s: float
    """Time for which replicas had their devices, all together."""
    held_fraction: float
    """Device time that replicas had, over that of all devices from 0 to the last finish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent:
    """Something that came or went."""

    time_s: float
    pool: str
    replica: int
    event: str
    """starts, takes requests, drains, fails or off."""
    ready: int
    """Replicas of the pool that take requests from then on."""


def is_plain(run: Serving) -> bool:
    """Tell whether one engine does everything and nothing comes or goes."""
    asked = run.scenario.serving.cluster
    changing = asked.autoscaling or asked.failures or asked.drains
    return run.replicas == 1 and not changing


@dataclass(slots=True)
class Fleet:
    """The pools of a run, ready to serve."""

    loop: Loop
    pools: list[Pool]
    joined: Handover | None
    changes: list[Changes]

    @property
    def is_blind(self) -> bool:
        """Whether nobody looks at replicas and nothing joins or changes them."""
        alone = self.joined is None and not any(change.some for change in self.changes)
        return alone and self.pools[0].policy in BLIND

    def events(self, pools: tuple[PoolRun, ...]) -> tuple[ClusterEvent, ...]:
        """Return what came and went, in order."""
        found = [
            ClusterEvent(time_s=at / PS_PER_S, pool=run.name, replica=replica, event=what,
                         ready=ready)
            for run, pool in zip(pools, self.pools, strict=True)
            for at, replica, what, ready in pool.events
        ]  # fmt: skip
        return tuple(sorted(found, key=lambda one: one.time_s))

    def figures(self, pools: tuple[PoolRun, ...]) -> ClusterFigures:
        """Return what happened so far."""
        joined = self.joined
        last = max(self.loop.asked.finish)
        now = max(self.loop.now, last)
        taken_ps = sum(pool.time_ps(now) for pool in self.pools)
        widths = [run.engine.width for run in pools]
        devices = sum(run.replicas * run.engine.width for run in pools)
        held = sum(w * pool.time_ps(now) for w, pool in zip(widths, self.pools, strict=True))
        return ClusterFigures(
            failures=sum(change.failed for change in self.changes),
            recomputed=self.loop.recomputed, transfers=joined.moved if joined else 0,
            transfer_s=joined.moving_ps / max(1, joined.moved) / PS_PER_S if joined else 0.0,
            replica_s=taken_ps / PS_PER_S,
            held_fraction=held / (devices * now) if now > 0 else 1.0,
        )  # fmt: skip


def fleet(run: Serving, asked: Requests, times: Times) -> Fleet:
    """Return the pools of `run` under one clock, for these requests."""
    seen = [prompts_only(asked), asked] if len(run.pools) > 1 else [asked]
    made = [
        _pool(number, pool, one, times(pool.engine), run)
        for number, (pool, one) in enumerate(zip(run.pools, seen, strict=True))
    ]
    loop = Loop(asked, made[0])
    joined = _handover(run, loop, made) if len(made) > 1 else None
    changes = [
        _changes(run, loop, pool, one, joined) for pool, one in zip(run.pools, made, strict=True)
    ]
    return Fleet(loop, made, joined, changes)


def _pool(index: int, pool: PoolRun, asked: Requests, times: IterationTimes, run: Serving) -> Pool:
    def build() -> Server:
        return engine(pool.engine, times, asked, one_by_one=run.step_by_step)

    draw = rng.stream(run.scenario.seed, f"router of {pool.name}")
    return Pool(build, pool.router, draw, pool.replicas, index)


def _changes(
    run: Serving, loop: Loop, pool: PoolRun, made: Pool, joined: Handover | None
) -> Changes:
    asked = run.scenario.serving.cluster
    failures = draw = None
    if asked.failures is not None:
        mean = ps(asked.failures.device_mtbf) / pool.engine.width
        failures = FailureRules(mean_ps=mean, restart_ps=ps(asked.failures.restart))
        draw = rng.stream(run.scenario.seed, f"failures of {pool.name}")
    changes = Changes(loop, made, failures=failures, draw=draw)
    if joined is not None:
        changes.fallen = joined.fallen
        changes.released = joined.release
    changes.start(_drains(asked), _scaling(asked))
    return changes


def _drains(asked: ServingClusterSpec) -> tuple[Drain, ...]:
    return tuple(
        Drain(replica=one.replica, at_ps=ps(one.at), duration_ps=ps(one.duration))
        for one in asked.drains
    )


def _scaling(asked: ServingClusterSpec) -> ScaleRules | None:
    scaling = asked.autoscaling
    if scaling is None:
        return None
    return ScaleRules(
        minimum=scaling.minimum, maximum=scaling.maximum, target=scaling.target,
        interval_ps=max(1, ps(scaling.interval)), start_up_ps=ps(scaling.start_up),
    )  # fmt: skip


def _handover(run: Serving, loop: Loop, made: list[Pool]) -> Handover:
    prefill, decode = run.pools
    asked = run.scenario.serving.cluster
    transfer = asked.transfer or TransferSpec()
    links, way = _ways(run, transfer.network == "scale_out")
    layers = run.deployment.architecture.num_layers if transfer.overlap == "layer_wise" else 1
    joined = Handover(loop, made[0], made[1], links, way, layers)
    joined.join()
    first, second = limits(prefill.engine.rules), limits(decode.engine.rules)
    again = asked.failures is not None

    def may_enter(request: int) -> bool:
        """Tell whether prefill and decode have room for a request, recomputed ones included."""
        whole = loop.asked.prompt[request] + loop.asked.allowed[request]
        longest = whole if again else loop.asked.prompt[request] + 1
        return whole <= second[0] and longest <= first[0]

    loop.may_enter = may_enter
    return joined


def _ways(run: Serving, away: bool) -> tuple[Links, Callable[[int, int, int, int], Route]]:
    """Return the links of all attention groups, and which two a transfer goes over."""
    topology = run.cluster.topology
    first, second = (pool.engine.deployment for pool in run.pools)
    groups = [pool.replicas * pool.engine.deployment.cut.dp for pool in run.pools]
    base = run.pools[0].replicas * run.pools[0].engine.width
    sending = ports(first, second.cut.tp * second.cut.pp, topology)
    receiving = ports(second, first.cut.tp * first.cut.pp, topology)
    capacity: list[float] = []
    for port, count in ((sending, groups[0]), (receiving, groups[1])):
        rates = (port.scale_up_bytes_per_s / PS_PER_S, port.scale_out_bytes_per_s / PS_PER_S)
        capacity += rates * count
    per_token = moved_bytes_per_token(second)
    known: dict[tuple[int, int, int, int], Route] = {}

    def way(source: int, rank: int, target: int, into: int) -> Route:
        key = (source, rank, target, into)
        if key not in known:
            rank, into = rank % first.cut.dp, into % second.cut.dp  # whatever the batch
            here = group_devices(first, 0, source, rank)
            there = group_devices(second, base, target, into)
            domain = topology.scale_up.domain_size
            far = away or len({device // domain for device in here + there}) > 1
            tier = topology.scale_out if far and topology.scale_out else topology.scale_up
            one = 2 * (source * first.cut.dp + rank) + far
            other = 2 * (groups[0] + target * second.cut.dp + into) + far
            rate = min(capacity[one], capacity[other])
            known[key] = Route((one, other), ps(tier.latency_s), per_token, rate)
        return known[key]

    return Links(capacity), way
