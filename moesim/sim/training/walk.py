"""What a stage does in a step, counted: enough for a bound of its time, without simulating it."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moesim.sim.training.registry import stage_moments, stage_order
from moesim.sim.training.schedules import Action, Order, Pair, passes

Kind = tuple[str, int] | tuple[int, int]
"""A kind of pass and its chunk, or the chunks of the forward and backward pass of a pair."""


@dataclass(frozen=True, slots=True)
class Walk:
    """The passes of a stage: how many of each kind, which come first and last."""

    counts: dict[Kind, float]
    first: int
    """Chunk of the first pass."""
    last: int
    """Chunk of the last pass whose result another stage may wait for."""
    late: dict[Kind, float]
    """What follows that pass."""
    final: Kind
    """The last pass of all, which makes the gradients of its chunk final."""
    held: NDArray[np.int64]
    """Micro-batches of each chunk at the moments among which the fullest is; a row each."""
    at_work: NDArray[np.bool_]
    """The chunks whose passes run at those moments."""


def walk(name: str, stage: int, stages: int, size: tuple[int, int], pairs: bool) -> Walk:
    """Return what a stage does; `size` is micro-batches and chunks.

    Beyond four pipelines' worth of micro-batches each more of them adds the same passes to the
    steady state, so that counts grow in proportion.
    """
    micro_batches, chunks = size
    few = 4 * stages
    if micro_batches <= few:
        return _counted(name, stage, stages, size, pairs)
    short = _counted(name, stage, stages, (few, chunks), pairs)
    longer = _counted(name, stage, stages, (few + 2 * stages, chunks), pairs)
    more = (micro_batches - few) / (2 * stages)
    counts = {
        kind: number + more * (longer.counts[kind] - number)
        for kind, number in short.counts.items()
    }
    held = np.full((1, 1), micro_batches) if name == "gpipe" else short.held
    return replace(short, counts=counts, held=held)


@lru_cache(maxsize=4096)
def _counted(name: str, stage: int, stages: int, size: tuple[int, int], pairs: bool) -> Walk:
    order = stage_order(name, stage, stages, size, pairs)
    number = next(n for n in reversed(range(len(order))) if passes((order[n],))[-1].kind in "BI")
    last = passes((order[number],))[-1]
    moments = stage_moments(name, stage, stages, size, pairs)
    return Walk(
        counts=_count(order),
        first=passes(order[:1])[0].chunk,
        last=last.chunk,
        late=_count(order[number + 1 :]),
        final=_kind(order[-1]),
        held=np.array([one.held for one in moments]),
        at_work=np.array([[c in one.at_work for c in range(len(one.held))] for one in moments]),
    )


def _count(order: Order) -> dict[Kind, float]:
    return {kind: float(times) for kind, times in Counter(map(_kind, order)).items()}


def _kind(item: Action | Pair) -> Kind:
    if isinstance(item, Pair):
        return item.forward.chunk, item.backward.chunk
    return item.kind, item.chunk
