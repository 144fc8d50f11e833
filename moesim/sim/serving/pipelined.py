"""Batches that follow each other through the stages of a pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from moesim.sim.serving.lockstep import Lockstep
from moesim.sim.serving.replica import Replica


@dataclass(slots=True)
class Pipelined:
    """As many batches as stages, each with its own requests; looks like a replica from outside.

    An iteration of a batch passes all stages and takes the sum of their times. With equal stages
    the batches fill them in turn without a wait, so that each goes on as if it were alone; what
    unequal batches wait for each other is not modelled.
    """

    batches: Sequence[Replica | Lockstep]
    finished: list[int] = field(default_factory=list)

    @property
    def now(self) -> int:
        """Start of the next iteration of the batch that is furthest behind."""
        busy = [batch.now for batch in self.batches if not batch.is_idle]
        return min(busy, default=max(batch.now for batch in self.batches))

    @property
    def is_idle(self) -> bool:
        """Whether no batch has anything to do."""
        return all(batch.is_idle for batch in self.batches)

    @property
    def rejected(self) -> list[int]:
        """Requests that could never be served here."""
        return [request for batch in self.batches for request in batch.rejected]

    def submit(self, request: int, at: int, put_out: int = 0) -> bool:
        """Queue a request at the batch with fewest; False: it never fits."""
        loads = [_load(batch, at) for batch in self.batches]
        return self.batches[loads.index(min(loads))].submit(request, at, put_out)

    def touch(self, at: int) -> None:
        """Advance to a time at which something from outside changes what may be planned.

        What finishes stays with its batch, for whoever takes it there.
        """
        for batch in self.batches:
            batch.touch(at)

    def next_change(self) -> int | None:
        """Return when something ends next in any batch; None when idle."""
        changes = [batch.next_change() for batch in self.batches]
        return min((one for one in changes if one is not None), default=None)

    def advance(self, until: int) -> None:
        """Carry out all iterations that begin before `until`."""
        for batch in self.batches:
            batch.advance(until)
            self.finished += batch.finished
            batch.finished.clear()


def _load(batch: Replica | Lockstep, at: int) -> int:
    ranks = [batch] if isinstance(batch, Replica) else batch.ranks
    return sum(len(rank.queue) + rank.placed(at) for rank in ranks)
