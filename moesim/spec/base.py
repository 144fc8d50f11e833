"""The base of every schema class: frozen, strict, and documented by its own docstrings."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Spec(BaseModel):
    """A part of what the user wrote; unknown keys, wrong types, NaN and infinity are errors."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_T = TypeVar("_T")
Listed = Annotated[tuple[_T, ...], BeforeValidator(_as_tuple)]
"""A YAML list, kept as a tuple."""


def or_one(schema: dict[str, Any]) -> None:
    """Let the JSON schema of a list take one item without brackets too (a json_schema_extra)."""
    names = [name for name in ("type", "items", "minItems", "maxItems") if name in schema]
    as_list = {name: schema.pop(name) for name in names}
    schema["anyOf"] = [as_list["items"], as_list]
