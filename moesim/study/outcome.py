"""What a simulated training run came to: records that reports and files are made from."""

from collections.abc import Mapping
from dataclasses import dataclass

from moesim.cost.memory import StageMemory
from moesim.cost.times import StageCost
from moesim.cost.work import Loads
from moesim.moe.micro_batches import VariedLoad
from moesim.sim.kernel import Slice
from moesim.sim.training.step import StepResult
from moesim.study.resolve import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimizer step."""

    number: int
    seconds: float
    routed: int
    """Assignments of tokens to experts in one micro-batch of one expert-parallel group, summed
    over layers; the mean over micro-batches where these differ, to the next whole number."""
    dropped: int
    imbalance: float
    """Rows of the fullest rank over the mean, averaged over layers and micro-batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The figures of a run that people compare. Times and rates are means over the steps."""

    step_s: float
    tokens_per_step: int
    tokens_per_s: float
    tokens_per_s_per_device: float
    model_flop_per_token: float
    flop_per_s_per_device: float
    mfu_fraction: float
    hfu_fraction: float
    bubble_fraction: float
    exposed_fraction: float
    """Share of the step in which a device only communicates or waits for a transfer."""
    usd_per_million_tokens: float | None
    energy_at_tdp_j_per_token: float | None
    training_days: float | None
    training_usd: float | None


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the step time, averaged over the stages; all parts sum to the step."""

    name: str
    kind: str
    """compute, exposed (communication not hidden), waiting (for data), or idle."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that one simulated run shows."""

    run: Training
    metrics: Metrics
    steps: tuple[Step, ...]
    breakdown: tuple[Share, ...]
    memory: tuple[StageMemory, ...]
    stages: tuple[StageCost, ...]
    """Of the first step, in the mean over micro-batches."""
    first: StepResult
    loads: Loads
    """Of the first micro-batch of the first step."""
    slices: tuple[Slice, ...]
    varied: Mapping[int, VariedLoad] | None = None
    """The loads of all micro-batches of the first step, by layer; None where they are equal."""
    durations: tuple[tuple[float, ...], ...] = ()
    """[stage][item of its order] seconds of the passes of the first step, where they differ."""

    @property
    def peak_bytes(self) -> float:
        """Bytes on the fullest rank."""
        return max(stage.total for stage in self.memory)

    @property
    def capacity_bytes(self) -> float:
        """Bytes a device has."""
        return self.run.cluster.device.memory_capacity_bytes

    @property
    def fits(self) -> bool:
        """Whether the fullest rank fits."""
        return self.peak_bytes <= self.capacity_bytes
