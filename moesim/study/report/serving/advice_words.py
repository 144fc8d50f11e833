"""What would make a serving run fit, in sentences and rows."""

from moesim.study.report.words import Row, binary
from moesim.study.serving.advice import SEQUENCES, Change
from moesim.study.serving.findings import Served
from moesim.units import readable

_MOST = 5


def sentences(model: Served) -> list[str]:
    """Return what would be enough, and what helps."""
    changes = model.changes
    if model.fits:
        return []
    enough = [change for change in changes if change.fits]
    if enough and enough[0].together == 1:
        return [f"Any one of these would make it fit: {_listed(enough)}."]
    if enough:
        return [f"No single change is enough. Together these would make it fit: {_listed(enough)}."]
    if changes:
        helps = "; ".join(
            f"{' '.join(one.settings)} ({binary(one.saved_bytes)})" for one in changes[:_MOST]
        )
        return [f"No few changes together are enough. What helps most: {helps}."]
    return ["No change of layout, formats, limits or offload helps: take other devices."]


def _listed(enough: list[Change]) -> str:
    listed = "; ".join(" with ".join(one.settings) for one in enough[:_MOST])
    more = f" ({len(enough) - _MOST} more below)" if len(enough) > _MOST else ""
    return listed + more


HEADS = (
    "set", "missing", "frees", "cache tokens", "devices",
    f"{SEQUENCES} decode in",
)  # fmt: skip
"""Heads of the rows below."""


def rows(model: Served) -> list[Row]:
    """Return every change that helps."""
    return [
        (
            " ".join(one.settings), "fits" if one.fits else binary(one.missing_bytes),
            binary(one.saved_bytes), f"{one.cache_tokens:,}" if one.fits else "",
            f"{one.devices:,}", readable(one.decode_s, "s"),
        )
        for one in model.changes
    ]  # fmt: skip
