"""What the operator times of a run rest on: tags, kernel profiles, and how far they may be off."""

from dataclasses import dataclass

from moesim.study.outcome import Outcome
from moesim.study.report.tables import operators


@dataclass(frozen=True, slots=True, kw_only=True)
class Footing:
    """Shares of the operator time; each adds up to 1."""

    tags: dict[str, float]
    """By how well times are known, largest first."""
    origins: dict[str, float]
    """By the kernel profile that a time comes from, largest first; "" is closed forms."""
    uncertainty_fraction: float
    """Relative standard deviation of the operator time if all errors went the same way."""


def footing(outcome: Outcome) -> Footing:
    """Return what the operator times of `outcome` rest on."""
    tags: dict[str, float] = {}
    origins: dict[str, float] = {}
    total = spread = 0.0
    for row in operators(outcome):
        seconds = row["seconds"] * row["count"]
        tags[row["tag"]] = tags.get(row["tag"], 0.0) + seconds
        origins[row["origin"]] = origins.get(row["origin"], 0.0) + seconds
        total += seconds
        spread += seconds * row["uncertainty"]
    return Footing(
        tags=_shares(tags, total),
        origins=_shares(origins, total),
        uncertainty_fraction=spread / total if total else 0.0,
    )


def _shares(seconds: dict[str, float], total: float) -> dict[str, float]:
    ordered = sorted(seconds.items(), key=lambda pair: (-pair[1], pair[0]))
    return {name: share / total for name, share in ordered if share}
