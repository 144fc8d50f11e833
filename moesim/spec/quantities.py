"""Quantities with units: a string such as "80 GiB" in YAML, a float in base units in Python."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from moesim import units
from moesim.errors import nearest

LARGEST = 1e50
"""No quantity is larger, nor smaller than one over this except zero: products stay finite."""

_LONGEST_TEXT = 100


def _reader(dimension: str) -> BeforeValidator:
    def read(value: Any) -> float:
        return _read(value, dimension)

    return BeforeValidator(read)


def _read(value: Any, dimension: str) -> float:
    example = units.DIMENSIONS[dimension].example
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise ValueError(f"is too long for a quantity; write for example '{example}'")
    try:
        number = units.parse(value, dimension)
    except ValueError as error:
        raise ValueError(f"{error}{_closest_unit(value, dimension)}") from None
    if number < 0:
        raise ValueError(f"'{value}' is negative; write for example '{example}'")
    if number > LARGEST:
        raise ValueError(f"'{value}' is too large; write for example '{example}'")
    if 0 < number < 1 / LARGEST:
        raise ValueError(f"'{value}' is too small; write for example '{example}'")
    return number


def _closest_unit(value: Any, dimension: str) -> str:
    unit = re.search(r"[^\d\s.+-]\S*$", value) if isinstance(value, str) else None
    known = units.DIMENSIONS[dimension].scales
    if unit is None or unit.group() in known:
        return ""
    same = [name for name in known if name.casefold() == unit.group().casefold()]
    if same:
        return f". Did you mean {' or '.join(repr(name) for name in same)}?"
    hint = nearest(unit.group(), known)
    return f".{hint}" if hint else ""


def _writer(dimension: str) -> PlainSerializer:
    def write(value: float) -> str:
        return units.exact(value, dimension)

    return PlainSerializer(write, return_type=str)


def _schema(dimension: str) -> WithJsonSchema:
    kind = units.DIMENSIONS[dimension]
    spellings = "|".join(sorted(unit.replace("/", "\\/") for unit in kind.scales))
    number = r"^\s*\+?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*"
    return WithJsonSchema(
        {"type": "string", "pattern": f"{number}({spellings})\\s*$", "examples": [kind.example]}
    )


_NOT_NEGATIVE = Field(ge=0)

Bytes = Annotated[float, _NOT_NEGATIVE, _reader("bytes"), _writer("bytes"), _schema("bytes")]
BytesPerS = Annotated[
    float, _NOT_NEGATIVE, _reader("bytes_per_s"), _writer("bytes_per_s"), _schema("bytes_per_s")
]
Seconds = Annotated[float, _NOT_NEGATIVE, _reader("s"), _writer("s"), _schema("s")]
FlopPerS = Annotated[
    float, _NOT_NEGATIVE, _reader("flop_per_s"), _writer("flop_per_s"), _schema("flop_per_s")
]
Watts = Annotated[float, _NOT_NEGATIVE, _reader("w"), _writer("w"), _schema("w")]
UsdPerDeviceHour = Annotated[
    float, _NOT_NEGATIVE, _reader("usd_per_h"), _writer("usd_per_h"), _schema("usd_per_h")
]
Tokens = Annotated[float, _NOT_NEGATIVE, _reader("tokens"), _writer("tokens"), _schema("tokens")]
TokensPerS = Annotated[
    float, _NOT_NEGATIVE, _reader("tokens_per_s"), _writer("tokens_per_s"), _schema("tokens_per_s")
]
PerS = Annotated[float, _NOT_NEGATIVE, _reader("per_s"), _writer("per_s"), _schema("per_s")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Efficiency = Annotated[float, Field(ge=1e-6, le=1)]
"""A share that something is divided by, so never zero."""
Count = Annotated[int, Field(ge=1, le=10**12)]
