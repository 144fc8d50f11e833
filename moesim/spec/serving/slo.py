"""What users of a service are promised."""

from typing import Annotated

from pydantic import Field, model_validator

from moesim.spec.base import Spec
from moesim.spec.quantities import Seconds


class SloSpec(Spec):
    """A service level objective: a request is good where it keeps all limits that are given."""

    ttft: Seconds | None = None
    """Longest time from arrival to the first token, such as `500 ms`."""
    tpot: Seconds | None = None
    """Longest time per output token after the first, such as `50 ms`; requests of one token keep
    it."""
    e2e: Seconds | None = None
    """Longest time from arrival to the last token."""
    attainment: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Share of the requests that must be good for the objective to be met."""

    @model_validator(mode="after")
    def _check(self) -> "SloSpec":
        if self.ttft is None and self.tpot is None and self.e2e is None:
            raise ValueError("give at least one of ttft, tpot and e2e")
        return self
