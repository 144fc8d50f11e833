"""A whole training campaign: what fails, what is saved, how the job comes back."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.spec.base import Listed, Spec
from moesim.spec.quantities import Bytes, BytesPerS, Seconds, Tokens
from moesim.spec.training import Batch


class CheckpointSpec(Spec):
    """What is saved, how often, and whether training waits for it."""

    every: Seconds | None = None
    """Training time between checkpoints, such as `30 min`; rounded up to whole steps."""
    every_steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Or steps between checkpoints."""
    size: Bytes | None = None
    """Bytes of a checkpoint; left out, weights, master weights and moments of all parameters."""
    storage_bandwidth: BytesPerS
    """Rate at which the whole job writes to its storage, and reads from it."""
    mode: Literal["sync", "async"] = "sync"
    """sync: training stands until all is written; async: it stands for `stall` and goes on while
    the rest is written."""
    stall: Seconds | None = None
    """What an asynchronous checkpoint costs training: the copy out of the devices' memory."""

    @model_validator(mode="after")
    def _check(self) -> "CheckpointSpec":
        if (self.every is None) == (self.every_steps is None):
            raise ValueError("give exactly one of every and every_steps")
        if self.every == 0:
            raise ValueError("every must be longer than 0 s; every_steps: 1 saves after each step")
        if self.storage_bandwidth == 0:
            raise ValueError(
                "storage_bandwidth must be above zero, or no checkpoint is ever written"
            )
        if self.mode == "async" and self.stall is None:
            raise ValueError("mode async needs stall, the time that training stands for the copy")
        if self.mode == "sync" and self.stall is not None:
            raise ValueError("stall belongs to mode async; with sync training waits for the write")
        return self


class RestartSpec(Spec):
    """The time from a failure until training goes on."""

    detect: Seconds
    """Until the failure is noticed and the job has stopped."""
    replace: Seconds
    """Until a healthy node is in the place of the failed one and the job has started again."""
    reload: Seconds | None = None
    """Until the checkpoint is read; left out, its bytes over checkpoint.storage_bandwidth."""


class RampStep(Spec):
    """A batch that holds at the start of the campaign."""

    until_tokens: Tokens
    """Tokens trained on when the next batch takes over."""
    global_batch: Batch
    """Sequences per optimizer step until then."""


class CampaignSpec(Spec):
    """Training on all of `training.tokens`, failures included."""

    device_mtbf: Seconds
    """Mean time between failures that stop the job, of one device with its share of everything
    else; with N devices the job stops N times as often."""
    checkpoint: CheckpointSpec
    """What is saved, and how often."""
    restart: RestartSpec
    """How the job comes back."""
    spare_nodes: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Healthy nodes that stand by and are paid for."""
    repair: Seconds = 0.0
    """Time until a failed node is healthy again; it is the next spare then."""
    batch_ramp: Annotated[Listed[RampStep], Field(max_length=32)] = ()
    """Batches before `training.global_batch` holds, in order."""
    step_spread: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Stragglers: standard deviation of the logarithm of a step's time. The simulated step is the
    median, so the mean is exp(spread^2 / 2) times as long."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 20
    """How often the campaign is simulated, each time with other draws."""

    @model_validator(mode="after")
    def _check(self) -> "CampaignSpec":
        if self.device_mtbf == 0:
            raise ValueError("device_mtbf must be longer than 0 s")
        if self.spare_nodes and self.repair == 0:
            raise ValueError(
                "spare_nodes change nothing without repair, the time a failed node is away"
            )
        ends = [step.until_tokens for step in self.batch_ramp]
        if ends != sorted(set(ends)) or 0.0 in ends:
            raise ValueError(
                "batch_ramp needs until_tokens above zero that grow from entry to entry"
            )
        return self
