"""Where each figure of a machine comes from, kept beside the numbers for reports."""

from dataclasses import dataclass
from typing import Any

from moesim import units
from moesim.spec.sourced import Figure, Kind


@dataclass(frozen=True, slots=True)
class SourcedFigure:
    """A figure as text, with its provenance."""

    subject: str
    """What it is a figure of, for example "accelerator h100-sxm"."""
    name: str
    """Its path in the profile, for example "peak.bf16"."""
    text: str
    kind: Kind
    source: str
    note: str


def sourced(
    subject: str, name: str, figure: Figure[Any] | None, dimension: str = ""
) -> tuple[SourcedFigure, ...]:
    """Return `figure` with its provenance, or nothing where the profile lacks it.

    `dimension` is a key of units.DIMENSIONS, or empty for a plain number.
    """
    if figure is None:
        return ()
    text = _text(figure.value, dimension)
    return (SourcedFigure(subject, name, text, figure.kind, figure.source, figure.note),)


def _text(value: Any, dimension: str) -> str:
    if dimension:
        return units.readable(value, dimension)
    if isinstance(value, tuple):
        return "x".join(str(part) for part in value)
    return str(value)
