"""Figures of serving in words."""

import math

from moesim.units import readable, three_digits


def seconds(value: float) -> str:
    """Return a time in words, "-" where there is none."""
    return readable(value, "s") if math.isfinite(value) else "-"


def rate(value: float) -> str:
    """Return a count per second in words, "-" where there is none."""
    return three_digits(value) if math.isfinite(value) else "-"
