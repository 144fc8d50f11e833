"""The only place that knows a prefix: "3.35 TB/s" <-> 3.35e12.

b is a bit and B a byte; k, M, G, T, P, E are powers of 1000, Ki, Mi, Gi, Ti, Pi powers of 1024.
"""

import math
import re
from dataclasses import dataclass

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_TIMES = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0,
    "min": 60.0, "h": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S.*?)?\s*$")


@dataclass(frozen=True, slots=True)
class Dimension:
    """A kind of quantity: its base unit, the unit spellings it accepts, and a valid example."""

    name: str
    base: str
    example: str
    scales: dict[str, float]


def _prefixed(*units: tuple[str, float], binary: bool = False) -> dict[str, float]:
    prefixes = {**_DECIMAL, **_BINARY} if binary else _DECIMAL
    return {p + unit: scale * size for unit, size in units for p, scale in prefixes.items()}


_BYTE = (("B", 1.0), ("b", 0.125), ("bit", 0.125))
_RATE = tuple((f"{unit}{per}", size) for unit, size in _BYTE for per in ("/s", "ps"))
_FLOP_RATE = (("FLOP/s", 1.0), ("FLOPS", 1.0), ("FLOPs/s", 1.0))

DIMENSIONS = {
    dimension.name: dimension
    for dimension in (
        Dimension("bytes", "B", "80 GiB", _prefixed(*_BYTE, binary=True)),
        Dimension("bytes_per_s", "B/s", "3.35 TB/s", _prefixed(*_RATE, binary=True)),
        Dimension("s", "s", "9 us", _TIMES),
        Dimension("flop", "FLOP", "1 TFLOP", _prefixed(("FLOP", 1.0))),
        Dimension("flop_per_s", "FLOP/s", "989 TFLOP/s", _prefixed(*_FLOP_RATE)),
        Dimension("w", "W", "700 W", _prefixed(("W", 1.0))),
        Dimension("j", "J", "1 kJ", {**_prefixed(("J", 1.0)), "Wh": 3600.0, "kWh": 3.6e6}),
        Dimension("usd", "USD", "1000 USD", _prefixed(("USD", 1.0))),
        Dimension("usd_per_h", "USD/h", "2.95 USD/h", {"USD/h": 1.0}),
        Dimension("tokens", "tokens", "2 Ttokens", _prefixed(("tokens", 1.0))),
        Dimension("tokens_per_s", "tokens/s", "2 Mtokens/s", _prefixed(("tokens/s", 1.0))),
        Dimension("per_s", "/s", "4 /s", {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600}),
    )
}


def parse(text: object, dimension: str) -> float:
    """Return the quantity written in `text` in base units.

    Raises ValueError, with the right form, for a bare number, a wrong unit or a value that is
    not finite.
    """
    kind = DIMENSIONS[dimension]
    if not isinstance(text, str):
        raise ValueError(f"write a number with its unit, for example '{kind.example}'")
    match = _NUMBER.match(text)
    if match is None:
        raise ValueError(
            f"'{text}' is not a number with a unit; write for example '{kind.example}'"
        )
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"'{text}' lacks its unit; write for example '{kind.example}'")
    if unit not in kind.scales:
        raise ValueError(f"unknown unit '{unit}'; write for example '{kind.example}'{_hint(unit)}")
    value = float(number) * kind.scales[unit]
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is too large")
    return value


def _hint(unit: str) -> str:
    if re.fullmatch(r"K[Bb].*", unit):
        return " (k is 1000, Ki is 1024; K alone is ambiguous)"
    return ""


def exact(value: float, dimension: str) -> str:
    """Return `value` as text in its base unit, such that parse() gives the same float back."""
    return f"{value!r} {DIMENSIONS[dimension].base}"


def readable(value: float, dimension: str) -> str:
    """Return `value` with three significant digits and a prefix, for people."""
    base = DIMENSIONS[dimension].base
    if dimension == "s":
        return _readable_time(value)
    if dimension == "usd_per_h":
        return f"{value:.3g} {base}"
    scales = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
    for scale, prefix in scales:
        if abs(value) >= 0.9995 * scale:
            return f"{three_digits(value / scale)} {prefix}{base}"
    return f"{three_digits(value)} {base}"


def _readable_time(value: float) -> str:
    if abs(value) >= 2 * 86400:
        return f"{three_digits(value / 86400)} days"
    if abs(value) >= 2 * 3600:
        return f"{three_digits(value / 3600)} h"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(value) >= 0.9995 * scale:
            return f"{three_digits(value / scale)} {unit}"
    return "0 s" if value == 0 else f"{three_digits(value / 1e-9)} ns"


def three_digits(value: float) -> str:
    """Return `value` with three significant digits, without an exponent below a million."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.3g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    if abs(rounded) >= 10.0 ** (3 - digits):  # rounded up to the next power of ten
        digits -= 1
    return f"{rounded:,.{max(0, digits)}f}"
