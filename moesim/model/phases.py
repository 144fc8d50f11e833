"""Kernels that follow each other inside one operator: what each computes, reads and writes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """One kernel of an operator that is several; the next one starts when it has ended."""

    name: str
    flop: float
    read_bytes: float
    written_bytes: float

    @property
    def moved_bytes(self) -> float:
        """Bytes between the device and its memory."""
        return self.read_bytes + self.written_bytes
