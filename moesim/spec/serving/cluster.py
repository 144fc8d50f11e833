"""Many replicas: how requests are spread, prefill and decode apart, what comes and goes."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.spec.base import Listed, Spec
from moesim.spec.quantities import Seconds
from moesim.spec.serving.engine import EngineSpec
from moesim.spec.serving.parallel import ServingParallelSpec

Replicas = Annotated[int, Field(ge=1, le=100_000)]
RouterPolicy = Literal[
    "round_robin", "random", "least_outstanding", "power_of_two", "session_affinity",
    "prefix_affinity", "kv_aware",
]  # fmt: skip


class PoolSpec(Spec):
    """Replicas that only compute prompts, or only decode."""

    replicas: Replicas = 1
    """Replicas of the pool."""
    parallel: ServingParallelSpec | None = None
    """Their layout; left out, that of `serving.parallel`."""
    engine: EngineSpec | None = None
    """Their engine; left out, `serving.engine`."""
    router: RouterPolicy = "least_outstanding"
    """How requests find a replica of the pool."""


class TransferSpec(Spec):
    """How the cache of a request moves from prefill to decode."""

    network: Literal["auto", "scale_out"] = "auto"
    """auto: within a scale-up domain over it, else over scale-out; scale_out: always over that."""
    overlap: Literal["none", "layer_wise"] = "none"
    """none: sent when the whole prompt is computed; layer_wise: the cache of each layer is sent
    while later ones are computed, so that what remains is the last layer's, or what the link could
    not carry meanwhile."""


class FfnSpec(Spec):
    """Devices with feed-forward networks alone, of one replica."""

    devices: Replicas
    """How many; parallel.ep spreads experts over them, the rest cuts each expert."""
    micro_batches: Annotated[int, Field(ge=1, le=64)] = 3
    """Parts of a batch under way between both kinds of devices: with one, one side always waits;
    three hide the way as well (Step-3, MegaScale-Infer; from memory, unchecked)."""


class AutoscalingSpec(Spec):
    """How many replicas run: requests not finished over `target`, rounded up, within bounds."""

    minimum: Replicas = 1
    """Replicas at least, and at the start."""
    maximum: Replicas
    """Replicas at most; the cluster has devices for them."""
    target: Annotated[float, Field(gt=0, le=10**6)]
    """Requests per replica, waiting ones included."""
    interval: Seconds
    """Time between decisions."""
    start_up: Seconds
    """Time from a decision until a new replica takes requests."""

    @model_validator(mode="after")
    def _check(self) -> "AutoscalingSpec":
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if not self.interval:
            raise ValueError("interval must be longer than 0 s")
        return self


class FailuresSpec(Spec):
    """Replicas that fail and come back; requests in flight are computed again elsewhere."""

    device_mtbf: Seconds
    """Mean time between failures that stop its replica, of one device with its share of everything
    else; a replica of N devices stops N times as often."""
    restart: Seconds
    """Time from a failure until the replica takes requests again."""

    @model_validator(mode="after")
    def _check(self) -> "FailuresSpec":
        if not self.device_mtbf:
            raise ValueError("device_mtbf must be longer than 0 s")
        return self


class DrainSpec(Spec):
    """A planned pause of one replica: it finishes what it has and takes nothing new."""

    replica: Annotated[int, Field(ge=0, le=100_000)]
    """Its number, from 0."""
    at: Seconds
    """When it stops taking requests."""
    duration: Seconds
    """How long it takes none."""


class ServingClusterSpec(Spec):
    """Replicas and their router."""

    disaggregation: Literal["none", "prefill_decode", "attention_ffn"] = "none"
    """none: each replica does all; prefill_decode: pools `prefill` and `decode`; attention_ffn:
    a replica's tp * dp devices have attention and the cache, those of `ffn` the experts and all
    other feed-forward networks, and micro-batches go to and fro."""
    replicas: Replicas | None = None
    """Replicas of tp * dp * pp devices; left out, as many as there are devices for."""
    router: RouterPolicy = "round_robin"
    """How requests find their replica."""
    prefill: PoolSpec | None = None
    """Replicas that only compute prompts."""
    decode: PoolSpec | None = None
    """Replicas that only decode."""
    ffn: FfnSpec | None = None
    """With attention_ffn: the devices with feed-forward networks."""
    transfer: TransferSpec | None = None
    """Left out, its defaults hold."""
    autoscaling: AutoscalingSpec | None = None
    """Left out, as many replicas as there are all the time."""
    failures: FailuresSpec | None = None
    """Left out, no replica fails."""
    drains: Annotated[Listed[DrainSpec], Field(max_length=1000)] = ()
    """Planned pauses of replicas."""

    @model_validator(mode="after")
    def _check(self) -> "ServingClusterSpec":
        if (self.disaggregation == "attention_ffn") != (self.ffn is not None):
            raise ValueError("disaggregation attention_ffn needs ffn, and ffn needs it")
        if self.disaggregation == "prefill_decode":
            self._check_apart()
        else:
            given = [k for k in ("prefill", "decode", "transfer") if getattr(self, k) is not None]
            if given:
                names = " and ".join(given)
                raise ValueError(f"{names} need disaggregation: prefill_decode")
        if self.autoscaling is not None and self.replicas is not None:
            raise ValueError("autoscaling decides how many replicas there are: leave out replicas")
        return self

    def _check_apart(self) -> None:
        if self.prefill is None or self.decode is None:
            raise ValueError("disaggregation prefill_decode needs prefill and decode")
        if self.decode.engine is not None and self.decode.engine.prefix_caching:
            raise ValueError(
                "decode.engine.prefix_caching: replicas that only decode keep no prefixes of "
                "their own here; leave it out"
            )
        given = set() if self.prefill.engine is None else self.prefill.engine.model_fields_set
        idle = sorted(given & {"balance_steps", "graphs", "graph_sizes", "speculative"})
        if idle:
            raise ValueError(
                f"prefill.engine.{idle[0]} has no effect where nobody decodes: leave it out"
            )
        pointless = {"replicas", "router", "autoscaling", "drains"} & self.model_fields_set
        if pointless:
            names = " and ".join(sorted(pointless))
            raise ValueError(
                f"{names} belong to replicas that do all; with prefill_decode each pool has its "
                "replicas and its router, and is of fixed size"
            )
