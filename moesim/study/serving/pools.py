"""Pools of replicas of a serving run, and whether their devices add up."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from moesim.cost.serving.capacity import Memory
from moesim.cost.serving.deployment import Deployment
from moesim.errors import ScenarioError
from moesim.sim.serving.routers import RouterName
from moesim.sim.serving.rules import EngineRules
from moesim.spec.serving.cluster import PoolSpec, ServingClusterSpec
from moesim.spec.serving.scenario import ServingScenario
from moesim.study.serving.engines import Preset


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A replica's deployment, its engine's defaults and its rules."""

    deployment: Deployment
    preset: Preset
    rules: EngineRules
    memory: Memory
    """Of one device."""

    @property
    def width(self) -> int:
        """Devices of a replica."""
        return self.deployment.cut.devices


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRun:
    """Replicas that are alike."""

    name: str
    """all, prefill or decode."""
    engine: Engine
    replicas: int
    router: RouterName


Resolved = Callable[[ServingScenario], Engine]


def check_failures(scenario: ServingScenario, found: tuple["PoolRun", ...]) -> None:
    """Raise ScenarioError where replicas with pipeline stages fail: that is not modelled."""
    if scenario.serving.cluster.failures is None:
        return
    if any(pool.engine.deployment.cut.pp > 1 for pool in found):
        raise scenario.error(
            "serving.cluster.failures", "are not modelled for replicas with pp above 1"
        )


def pools(scenario: ServingScenario, devices: int, engine_of: Resolved) -> tuple[PoolRun, ...]:
    """Return the pools that `scenario` asks for.

    Raises ScenarioError where the devices of all replicas are not those of the cluster.
    """
    asked = scenario.serving.cluster
    if asked.prefill is not None and asked.decode is not None:
        found = tuple(
            _pool(scenario, name, pool, engine_of)
            for name, pool in (("prefill", asked.prefill), ("decode", asked.decode))
        )
        _check_apart(scenario, devices, found)
        return found
    engine = engine_of(scenario)
    count = _count(scenario, devices, engine.width)
    for number, drain in enumerate(asked.drains):
        if drain.replica >= count:
            raise scenario.error(
                f"serving.cluster.drains.{number}.replica",
                f"replicas are 0 to {count - 1}, not {drain.replica}",
            )
    return (PoolRun(name="all", engine=engine, replicas=count, router=asked.router),)


def _count(scenario: ServingScenario, devices: int, width: int) -> int:
    asked: ServingClusterSpec = scenario.serving.cluster
    key, count = "serving.cluster.replicas", asked.replicas
    parts = "tp * dp * pp" if asked.ffn is None else "tp * dp * pp + cluster.ffn.devices"
    if asked.autoscaling is not None:
        key, count = "serving.cluster.autoscaling.maximum", asked.autoscaling.maximum
    if count is None:
        if devices % width:
            raise scenario.error(
                "serving.parallel",
                f"{parts} = {width} must divide the {devices} devices",
            )
        return devices // width
    if count * width != devices:
        raise scenario.error(
            key,
            f"{count} replicas of {parts} = {width} devices take {count * width}, but "
            f"cluster.devices is {devices}",
        )
    return count


def _pool(scenario: ServingScenario, name: str, pool: PoolSpec, engine_of: Resolved) -> PoolRun:
    own = {
        key: getattr(pool, key) for key in ("parallel", "engine") if getattr(pool, key) is not None
    }
    serving = scenario.serving.model_copy(update=own)
    try:
        engine = engine_of(scenario.model_copy(update={"serving": serving}))
    except ScenarioError as error:
        first = error.problems[0]
        part, _, rest = first.path.removeprefix("serving.").partition(".")
        if part not in own:
            raise
        key = ".".join(("serving", "cluster", name, part, *([rest] if rest else [])))
        raise scenario.error(key, first.message) from None
    if name == "decode":  # what comes over from prefill is not looked up
        engine = replace(engine, rules=replace(engine.rules, prefix_caching=False))
    return PoolRun(name=name, engine=engine, replicas=pool.replicas, router=pool.router)


def _check_apart(scenario: ServingScenario, devices: int, found: tuple[PoolRun, ...]) -> None:
    taken = [pool.replicas * pool.engine.width for pool in found]
    if sum(taken) != devices:
        parts = " and ".join(
            f"{pool.replicas} {pool.name} replicas of {pool.engine.width}" for pool in found
        )
        raise scenario.error(
            "serving.cluster",
            f"{parts} take {' + '.join(map(str, taken))} = {sum(taken)} devices, but "
            f"cluster.devices is {devices}",
        )
