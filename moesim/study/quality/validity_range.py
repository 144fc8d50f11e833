"""Where a fitted law was fitted, and the refusal to use it far from there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from moesim.errors import ModelError

STRETCH = 3.0
"""A law is used up to this factor beyond its range; further only where one asks for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A law that somebody fitted: what it is called, where it stands, what it was fitted to."""

    name: str
    source: str
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest value of each quantity in the runs that were fitted."""
    note: str = ""
    """What the ranges do not say: the kind of network, the data set."""


def outside(law: Law, stretch: float = 1.0, /, **values: float) -> tuple[str, ...]:
    """Return what lies outside the law's ranges, these widened by `stretch`; empty if nothing."""
    found = []
    for name, value in values.items():
        low, high = law.ranges[name]
        if not low / stretch <= value <= high * stretch:
            found.append(f"{name} {value:.3g} is outside {low:.3g} to {high:.3g}")
    return tuple(found)


def check(law: Law, extrapolate: bool, /, **values: float) -> None:
    """Raise ModelError where a value lies further than STRETCH beyond the law's range.

    Values that are no positive numbers are refused in any case.
    """
    wrong = [name for name, value in values.items() if not 0 < value < float("inf")]
    if wrong:
        raise ModelError(f"{law.name}: {' and '.join(wrong)} must be positive and finite")
    problems = () if extrapolate else outside(law, STRETCH, **values)
    if problems:
        raise ModelError(
            f"{law.name} was fitted elsewhere: {'; '.join(problems)}, by more than a factor of "
            f"{STRETCH:g}. Ask for extrapolation to have a figure all the same. {law.note}".strip()
        )
