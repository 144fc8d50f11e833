"""Numbers in other tools' files: words that mean none, values that cannot be meant."""

import math
from decimal import Decimal, InvalidOperation
from typing import Any

LARGEST_COUNT = 2**53
"""Whole numbers beyond this are damage: a float no longer holds each of them."""


def number(value: Any) -> float | None:
    """Return a finite number, from JSON or from a text; None for N/A, -, nan and all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def rounding(value: Any) -> float:
    """Return half a unit of the last digit of a number as it is written: 0.005 for 20.00.

    2 significant digits, as in 1.2e+05, leave 4 %. Infinite for what is no number.
    """
    try:
        exponent = Decimal(str(value)).as_tuple().exponent
    except InvalidOperation:
        return math.inf
    return 0.5 * 10.0**exponent if isinstance(exponent, int) and abs(exponent) < 99 else math.inf


def count(value: Any) -> int | None:
    """Return a whole number from 0 up, from JSON or from a text; None for all else."""
    found = number(value)
    if found is None or found != int(found) or not 0 <= found <= LARGEST_COUNT:
        return None
    return int(found)


def counts(value: Any) -> tuple[int, ...] | None:
    """Return a list of whole numbers from 1 up; None for all else."""
    if not isinstance(value, list):
        return None
    found = tuple(count(part) for part in value)
    return tuple(part for part in found if part) if all(found) else None
