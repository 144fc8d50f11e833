"""Which requests come when."""

from math import ceil
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from moesim import units
from moesim.spec.base import Spec
from moesim.spec.quantities import PerS
from moesim.spec.serving.lengths import Lengths
from moesim.spec.serving.sessions import SessionsSpec
from moesim.spec.serving.traces import Traced

Count = Annotated[int, Field(ge=1, le=10**8)]

_SERVER_S = 600
"""Shortest run of MLPerf's server scenario (min_duration of loadgen; from memory, unchecked)."""
_OFFLINE = 24_576
"""Fewest samples of MLPerf's offline scenario (inference rules; from memory, unchecked)."""


class WorkloadSpec(Spec):
    """Requests: how many, how long, and how they arrive."""

    load: Literal["mlperf-server", "mlperf-offline"] | None = None
    """A known load in one word. mlperf-offline: arrivals at_once, of 24,576 requests;
    mlperf-server: arrivals poisson at `rate`, for 600 s. `requests` changes how many."""
    arrivals: Literal["at_once", "constant", "poisson", "gamma", "closed", "trace"] = "poisson"
    """at_once: all at time 0 (offline); constant, poisson, gamma: at `rate`, with gaps that are
    equal, exponential, or gamma distributed; closed: `in_flight` requests at any time, each that
    ends makes room for the next; trace: when the trace says, which is what a trace does unless
    something else is asked for. With `sessions` it is conversations that arrive or go on."""
    rate: PerS | None = None
    """Requests per second, such as `4 /s`; with `sessions`, conversations per second."""
    burstiness: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Shape of the gamma law of gaps: 1 is Poisson, smaller is burstier (as in vllm bench)."""
    in_flight: Count | None = None
    """Requests in flight of a closed loop; with `sessions`, conversations."""
    requests: Count = 1000
    """Requests in all; those of a trace are counted by its file."""
    warm_up: Annotated[int, Field(ge=0, le=10**8)] = 0
    """The first requests, which metrics leave out."""
    prompt: Lengths | None = None
    """Tokens of a prompt; with `sessions`, the new tokens of a turn."""
    output: Lengths | None = None
    """Tokens that come out of a request."""
    trace: Traced | None = None
    """Requests from a file, in place of `requests`, `prompt` and `output`."""
    sessions: SessionsSpec | None = None
    """Requests as turns of conversations."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: Any) -> Any:
        """Write out what one word stands for."""
        if not isinstance(data, dict):
            return data
        if data.get("trace") is not None and "arrivals" not in data and "load" not in data:
            return {"arrivals": "trace" if data.get("rate") is None else "poisson", **data}
        if data.get("load") == "mlperf-offline":
            return _loaded(data, "at_once", _OFFLINE)
        if data.get("load") == "mlperf-server":
            return _loaded(data, "poisson", ceil(_per_s(data.get("rate")) * _SERVER_S))
        return data

    @model_validator(mode="after")
    def _check(self) -> "WorkloadSpec":
        open_loop = self.arrivals in ("constant", "poisson", "gamma")
        if open_loop != (self.rate is not None):
            verb = "needs" if open_loop else "has no"
            raise ValueError(f"arrivals {self.arrivals} {verb} rate")
        if open_loop and not self.rate:
            raise ValueError("rate must be above 0 /s")
        if (self.arrivals == "gamma") != (self.burstiness is not None):
            raise ValueError("burstiness belongs to arrivals gamma, which needs it")
        if (self.arrivals == "closed") != (self.in_flight is not None):
            raise ValueError("in_flight belongs to arrivals closed, which needs it")
        expected = {"mlperf-server": "poisson", "mlperf-offline": "at_once"}
        if self.load is not None and self.arrivals != expected[self.load]:
            raise ValueError(f"load {self.load} has arrivals {expected[self.load]}")
        if self.trace is not None:
            return self._check_trace()
        if self.arrivals == "trace":
            raise ValueError("arrivals trace needs a trace")
        if self.prompt is None or self.output is None:
            raise ValueError("needs prompt and output, or a trace")
        if self.warm_up >= self.requests:
            raise ValueError(f"warm_up {self.warm_up} leaves none of {self.requests} requests")
        return self

    def _check_trace(self) -> "WorkloadSpec":
        assert self.trace is not None
        if self.prompt is not None or self.output is not None or self.sessions is not None:
            raise ValueError("a trace says how long requests are: no prompt, output or sessions")
        if self.load is None and "requests" in self.model_fields_set:
            raise ValueError("a trace says how many requests there are: trace.head takes fewer")
        if self.arrivals != "trace" and self.trace.speed != 1:
            raise ValueError("trace.speed belongs to arrivals trace; change the rate")
        return self


def _loaded(data: dict[Any, Any], arrivals: str, requests: int) -> dict[Any, Any]:
    """Return `data` with what a load says; a trace has its own number of requests."""
    counted = {} if data.get("trace") is not None or not requests else {"requests": requests}
    return {"arrivals": arrivals, **counted, **data}


def _per_s(rate: Any) -> float:
    """Return a rate as written, 0 where it is none: its own check says so."""
    try:
        return min(max(units.parse(rate, "per_s"), 0.0), 1e5)
    except ValueError:
        return 0.0
