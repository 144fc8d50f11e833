"""What a serving scenario came to, as one record that every report is made from."""

from collections.abc import Mapping
from dataclasses import dataclass

from moesim.spec.serving.scenario import ServingScenario
from moesim.study.serving.advice import Change
from moesim.study.serving.curve import Point
from moesim.study.serving.groups import Groups
from moesim.study.serving.memory import DeviceMemory
from moesim.study.serving.pool_findings import PoolServed
from moesim.study.serving.simulate import ServingOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model under the requests of a scenario."""

    relation: str
    """What it has in common with the model; empty for the model itself."""
    outcome: ServingOutcome
    memory: DeviceMemory
    curve: tuple[Point, ...]
    """Throughput against interactivity."""
    pools: tuple[PoolServed, ...]
    """What each pool of replicas comes to, the last one that decodes."""
    context_tokens: int
    """Tokens in the cache of each sequence of the iterations that are taken apart."""
    changes: tuple[Change, ...] = ()
    """What would make it fit, where it does not."""

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.outcome.run.deployment.architecture.name

    @property
    def groups(self) -> Mapping[int, Groups]:
        """Seconds of a decode iteration by group of operators, by sequences."""
        return self.pools[-1].decode

    @property
    def fits(self) -> bool:
        """Whether the model and the longest request fit into the devices' memory."""
        return self.memory.fits

    @property
    def meets_slo(self) -> bool:
        """Whether the objective is met, where there is one."""
        return self.outcome.metrics.meets_slo is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingFindings:
    """A model that is served, and the models beside it."""

    scenario: ServingScenario
    model: Served
    baselines: tuple[Served, ...]
    dialect: str = "vllm"
    """Whose definitions of latencies are shown."""

    @property
    def fits(self) -> bool:
        """Whether the model fits into the memory of its devices."""
        return self.model.fits

    @property
    def meets_slo(self) -> bool:
        """Whether the objective is met, where there is one."""
        return self.model.meets_slo

    @property
    def runs(self) -> tuple[Served, ...]:
        """The model, then the baselines."""
        return (self.model, *self.baselines)
