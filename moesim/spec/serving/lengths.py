"""How long prompts and outputs are."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from moesim.spec.base import Listed, Spec

TokenCount = Annotated[int, Field(ge=1, le=10**7)]


_WANTED = {
    "fixed": ({"mean"},),
    "uniform": ({"low", "high"},),
    "lognormal": ({"mean", "cv"},),
    "empirical": ({"values"}, {"file"}),
}


class LengthsSpec(Spec):
    """A law of lengths in tokens; a bare number is one length, a bare list or file is empirical."""

    law: Literal["fixed", "uniform", "lognormal", "empirical"] = "fixed"
    """fixed: `mean` always; uniform: whole numbers from low to high; lognormal: by mean and cv,
    rounded, at least 1; empirical: drawn from the lengths in `values` or in `file`, each as likely
    as any other."""
    mean: Annotated[float, Field(ge=1, le=10**7)] | None = None
    """Tokens on average."""
    cv: Annotated[float, Field(gt=0, le=20)] | None = None
    """Standard deviation over mean, of lognormal."""
    low: TokenCount | None = None
    """Fewest tokens, of uniform."""
    high: TokenCount | None = None
    """Most tokens, of uniform."""
    values: Annotated[Listed[TokenCount], Field(min_length=1, max_length=100_000)] | None = None
    """Lengths to draw from."""
    file: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """A file of lengths to draw from: a trace, of which the prompts or the outputs are taken, or
    one length a line."""

    @model_validator(mode="after")
    def _check(self) -> "LengthsSpec":
        names = ("mean", "cv", "low", "high", "values", "file")
        given = {name for name in names if getattr(self, name) is not None}
        if given not in _WANTED[self.law]:
            either = " or ".join(" and ".join(sorted(one)) for one in _WANTED[self.law])
            raise ValueError(f"law {self.law} needs {either}, and nothing else")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


def _law(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"law": "fixed", "mean": float(value)}
    if isinstance(value, list):
        return {"law": "empirical", "values": value}
    if isinstance(value, str):
        return {"law": "empirical", "file": value}
    return value


def _or_number(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a law take a number, a list or a file too (a json_schema_extra)."""
    number = {"type": "integer", "minimum": 1}
    many = {"type": "array", "items": number, "minItems": 1}
    schema["anyOf"] = [number, {"type": "string"}, many, {"$ref": schema.pop("$ref")}]


Lengths = Annotated[LengthsSpec, Field(json_schema_extra=_or_number), BeforeValidator(_law)]
"""A law, a number for one length, a list of lengths, or a file of them."""
