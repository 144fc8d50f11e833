"""Which model to compare with, on the same devices; its layout is of training or of serving."""

from typing import Any, Literal

from pydantic import model_validator

from moesim.spec.base import Spec


class ComparedSpec(Spec):
    """Another model beside the one of the scenario: mostly a dense one."""

    equal: Literal["active_params", "flop", "total_params"] | None = None
    """Derive a dense twin that is equal in this respect."""
    model: str | None = None
    """Or take this model: a name or a path, as for `model`."""

    @model_validator(mode="after")
    def _check(self) -> "ComparedSpec":
        if (self.equal is None) == (self.model is None):
            raise ValueError("give exactly one of equal and model")
        return self


def as_list(value: Any) -> Any:
    """Return one baseline as a list of one (a BeforeValidator)."""
    if isinstance(value, dict):
        return (value,)
    return tuple(value) if isinstance(value, list) else value
