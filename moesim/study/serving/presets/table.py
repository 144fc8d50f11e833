"""Rows of a table of defaults: each version says what it does otherwise than the one before it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

GIB = 2**30
MIB = 2**20
UNCHECKED = "from memory, unchecked"

Value = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What engines look at before they choose: the device, and the layout."""

    device: str
    memory_bytes: float
    tp: int = 1
    dp: int = 1
    pp: int = 1


@dataclass(frozen=True, slots=True)
class Default:
    """A default: a value or how it is chosen, and where that is read."""

    value: Value | Callable[[Setting], Value]
    source: str = UNCHECKED

    def at(self, setting: Setting) -> Value:
        """Return the value in a setting."""
        return self.value(setting) if callable(self.value) else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A release: what it changed."""

    released: str
    """Year and month, such as 2025-10: from memory, unchecked, until 2025; assumed from 2026 on.

    Only publications that give a month in place of a version are looked up by it."""
    changes: Mapping[str, Default]
