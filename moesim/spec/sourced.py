"""A figure with where it comes from: no number about hardware, software or a model stands alone."""

from typing import Generic, Literal, TypeVar

from moesim.spec.base import Spec

Kind = Literal["datasheet", "measured", "fitted", "assumed"]

_Q = TypeVar("_Q")


class Figure(Spec, Generic[_Q]):
    """A value, where it was read, and what kind of knowledge it is."""

    value: _Q
    """The figure itself, with its unit."""
    source: str
    """Where it was read, down to table, section or file."""
    kind: Kind
    """datasheet (the maker states it), measured, fitted (from measurements), or assumed."""
    note: str = ""
    """What a reader should know before trusting it."""
