"""Which requests come when."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.spec.base import Spec
from moesim.spec.quantities import PerS
from moesim.spec.serving.lengths import Lengths

Count = Annotated[int, Field(ge=1, le=10**8)]


class WorkloadSpec(Spec):
    """Requests: how many, how long, and how they arrive."""

    arrivals: Literal["at_once", "constant", "poisson", "gamma", "closed"] = "poisson"
    """at_once: all at time 0 (offline); constant, poisson, gamma: at `rate`, with gaps that are
    equal, exponential, or gamma distributed; closed: `in_flight` requests at any time, each that
    ends makes room for the next."""
    rate: PerS | None = None
    """Requests per second, such as `4 /s`."""
    burstiness: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Shape of the gamma law of gaps: 1 is Poisson, smaller is burstier (as in vllm bench)."""
    in_flight: Count | None = None
    """Requests in flight of a closed loop."""
    requests: Count = 1000
    """Requests in all."""
    warm_up: Annotated[int, Field(ge=0, le=10**8)] = 0
    """The first requests, which metrics leave out."""
    prompt: Lengths
    """Tokens of a prompt."""
    output: Lengths
    """Tokens that come out of a request."""

    @model_validator(mode="after")
    def _check(self) -> "WorkloadSpec":
        open_loop = self.arrivals in ("constant", "poisson", "gamma")
        if open_loop != (self.rate is not None):
            verb = "needs" if open_loop else "has no"
            raise ValueError(f"arrivals {self.arrivals} {verb} rate")
        if (self.arrivals == "gamma") != (self.burstiness is not None):
            raise ValueError("burstiness belongs to arrivals gamma, which needs it")
        if (self.arrivals == "closed") != (self.in_flight is not None):
            raise ValueError("in_flight belongs to arrivals closed, which needs it")
        if self.warm_up >= self.requests:
            raise ValueError(f"warm_up {self.warm_up} leaves none of {self.requests} requests")
        return self
