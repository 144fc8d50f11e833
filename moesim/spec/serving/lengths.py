"""How long prompts and outputs are."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from moesim.spec.base import Spec

TokenCount = Annotated[int, Field(ge=1, le=10**7)]


class LengthsSpec(Spec):
    """A law of lengths in tokens; a bare number is the same length for all."""

    law: Literal["fixed", "uniform", "lognormal"] = "fixed"
    """fixed: `mean` always; uniform: whole numbers from low to high; lognormal: by mean and cv,
    rounded, at least 1."""
    mean: Annotated[float, Field(ge=1, le=10**7)] | None = None
    """Tokens on average."""
    cv: Annotated[float, Field(gt=0, le=20)] | None = None
    """Standard deviation over mean, of lognormal."""
    low: TokenCount | None = None
    """Fewest tokens, of uniform."""
    high: TokenCount | None = None
    """Most tokens, of uniform."""

    @model_validator(mode="after")
    def _check(self) -> "LengthsSpec":
        wanted = {"fixed": {"mean"}, "uniform": {"low", "high"}, "lognormal": {"mean", "cv"}}
        given = {name for name in ("mean", "cv", "low", "high") if getattr(self, name) is not None}
        if given != wanted[self.law]:
            names = " and ".join(sorted(wanted[self.law]))
            raise ValueError(f"law {self.law} needs {names}, and nothing else")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


def _law(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"law": "fixed", "mean": float(value)}
    return value


def _or_number(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a law take a whole number too (a json_schema_extra)."""
    schema["anyOf"] = [{"type": "integer", "minimum": 1}, {"$ref": schema.pop("$ref")}]


Lengths = Annotated[LengthsSpec, Field(json_schema_extra=_or_number), BeforeValidator(_law)]
"""A law, or a number for one length."""
