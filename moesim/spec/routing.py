"""What the router does: how even the load is, and what happens to tokens beyond the capacity."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.spec.base import Spec


class LoadSpec(Spec):
    """How unevenly tokens spread over the experts of a layer."""

    law: Literal["even", "uniform", "dirichlet", "lognormal"] = "even"
    """even: forced balance; uniform: each token picks at random; dirichlet and lognormal: some
    experts are drawn more often than others."""
    cv: Annotated[float, Field(ge=0, le=20)] | None = None
    """Coefficient of variation of an expert's share, for dirichlet and lognormal. Measured: 0.02
    to 0.2 in training with balancing losses (Shazeer 2017, table 6), 0.4 to 1.3 at inference."""

    @model_validator(mode="after")
    def _check(self) -> "LoadSpec":
        needs = self.law in ("dirichlet", "lognormal")
        if needs and self.cv is None:
            raise ValueError(f"law {self.law} needs cv, the coefficient of variation of a share")
        if not needs and self.cv is not None:
            raise ValueError(f"law {self.law} takes no cv; dirichlet and lognormal do")
        if self.cv is not None and 0 < self.cv < 1e-6:
            raise ValueError("cv must be 0 or at least 0.000001")
        return self


class CapacitySpec(Spec):
    """How many tokens an expert accepts."""

    factor: Annotated[float, Field(gt=0, le=1e6)]
    """Capacity factor: slots over the mean load, by `formula`."""
    formula: Literal["megatron", "deepspeed", "tutel", "megablocks", "switch", "flaxformer"] = (
        "megatron"
    )
    """Whose rule turns the factor into slots; switch and flaxformer leave top-k out."""
    min_slots: Annotated[int, Field(ge=0, le=10**9)] = 1
    """Slots an expert has at least."""
    group_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Tokens of a routing group; left out: those one rank holds of a micro-batch."""
    pad: bool = False
    """Whether buffers are padded to the capacity, so that bytes and rows follow the slots."""


class RoutingSpec(Spec):
    """How tokens find their experts."""

    load: LoadSpec = LoadSpec()
    """How unevenly tokens spread over experts."""
    capacity: CapacitySpec | None = None
    """Slots per expert; left out, no token is dropped."""
