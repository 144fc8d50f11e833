"""Rows of a trace as columns, and how their numbers are checked."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

MOST_TOKENS = 10**7
"""A longer prompt or output is taken for a mistake."""

LATEST_PS = 4 * 10**18
"""Times beyond (46 days) do not fit into a run's clock of 64 bits with room to run on."""

BLOCK = 512
"""Tokens of a block with a hash id in Mooncake's traces (README of FAST25-release)."""

_HUGE = Decimal(10) ** 30

Lines = Iterable[tuple[int, str]]
"""Numbers from 1 and texts of the lines that are not empty."""


class RowError(ValueError):
    """A line that cannot be read; the message says what is wrong."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Rows:
    """What a file says, in its order; a column that it lacks stays empty."""

    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    """Arrivals in picoseconds."""
    prefix: list[tuple[int, ...]] = field(default_factory=list)
    session: list[str] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    allowed: list[int] = field(default_factory=list)
    block: int = BLOCK
    left_out: int = 0
    """Requests that failed or had no tokens, which are not taken."""
    counts_from_start: bool = True
    """Whether times count from the start of the run, or from whenever."""

    def lengths(self, prompt: int, output: int) -> bool:
        """Add a request if it has tokens on both sides, and return whether it has."""
        if not prompt or not output:
            self.left_out += 1
            return False
        self.prompt.append(prompt)
        self.output.append(output)
        return True


def whole(value: Any, name: str, most: int = MOST_TOKENS) -> int:
    """Return a whole number from 0 to `most`, of a number or its text.

    Raises ValueError that names it where it is none.
    """
    number: int | None = None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        number = int(value) if len(value) < 40 else None
    elif isinstance(value, Decimal) and 0 <= value <= most and value == int(value):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None or not 0 <= number <= most:
        raise ValueError(f"{name} is {shown(value)}, not a whole number from 0 to {most:,}")
    return number


def picoseconds(value: Any, name: str, exponent: int) -> int:
    """Return a time in units of 10^exponent s as whole picoseconds, exactly where it is whole.

    Raises ValueError that names it where it is no such time.
    """
    if type(value) is int:
        ps: int = value * 10 ** (exponent + 12)
    else:
        try:
            number = Decimal(value)
            ps = int(number.scaleb(exponent + 12).to_integral_value()) if number < _HUGE else -1
        except (InvalidOperation, TypeError, ValueError, OverflowError):
            raise ValueError(f"{name} is {shown(value)}, not a time") from None
    if isinstance(value, bool) or ps < 0:
        raise ValueError(f"{name} is {shown(value)}, not a time from 0 on")
    return ps


def shown(value: Any) -> str:
    """Return a value as it stands in a message, cut where it is long."""
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
