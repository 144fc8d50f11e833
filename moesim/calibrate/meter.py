"""Whoever measures a case: this process alone, or several ranks at once."""

from typing import Protocol

from moesim.calibrate import pieces
from moesim.calibrate.bench import Effort, Timing, per_call, time_call
from moesim.calibrate.cases import Store, build
from moesim.calibrate.device import Target, prepare, torch_module
from moesim.calibrate.suite import Case
from moesim.errors import CalibrationError


class Meter(Protocol):
    """Measures cases one after the other."""

    @property
    def in_one_call(self) -> bool:
        """Whether torch multiplies groups in one call on this device."""

    def measure(self, case: Case, effort: Effort) -> Timing:
        """Return how long a case takes."""


class LocalMeter:
    """Measures in this process."""

    def __init__(self, target: Target, rank: int = 0) -> None:
        prepare(target, rank)
        torch_module().manual_seed(rank)
        self.target = target
        self.in_one_call = pieces.has_grouped_mm(target.kind, target.dtypes[0])
        self._store = Store(target, in_one_call=self.in_one_call)

    def measure(self, case: Case, effort: Effort) -> Timing:
        """Return how long a case takes; CalibrationError where it does not fit into memory."""
        try:
            work = build(case, self._store)
            return per_call(time_call(work.call, self.target, effort), work.times)
        except (RuntimeError, MemoryError) as error:
            raise CalibrationError(
                f"{case.operator} {case.variant} {case.dtype} with {case.text} cannot be measured "
                f"on {self.target.name}: {str(error).splitlines()[0] if str(error) else error!r}"
            ) from error
