"""The model to compare a served one with, on the same devices."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from moesim.spec.base import Spec, or_one
from moesim.spec.serving.parallel import ServingParallelSpec


class ServingBaselineSpec(Spec):
    """Another model under the same requests on the same devices: mostly a dense one."""

    equal: Literal["active_params", "flop", "total_params"] | None = None
    """Derive a dense twin that is equal in this respect."""
    model: str | None = None
    """Or take this model: a name or a path, as for `model`."""
    parallel: ServingParallelSpec | None = None
    """Its layout; left out, the layout of the model, without expert parallelism."""

    @model_validator(mode="after")
    def _check(self) -> "ServingBaselineSpec":
        if (self.equal is None) == (self.model is None):
            raise ValueError("give exactly one of equal and model")
        return self


def _as_list(value: Any) -> Any:
    """Read one baseline as a list of one."""
    if isinstance(value, dict):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


ServingBaselines = Annotated[
    tuple[ServingBaselineSpec, ...],
    Field(max_length=8, json_schema_extra=or_one),
    BeforeValidator(_as_list),
]
"""One model to compare with, or several."""
