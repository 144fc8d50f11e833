"""Activations that a stage holds: those kept for backward passes to come, and those at work.

A rank r holds at a moment  sum over chunks c of (once[c, r] + n[c] each[c, r]) + working[w],
n[c] the micro-batches of chunk c whose backward pass is still to come, once what offloaded layers
leave on the device however many there are, w the chunk whose pass runs. Blocks are those of the
fullest rank of their layer; a rank with fewer rows keeps in proportion.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.cost.offload import on_device
from moesim.cost.recomputation import kept_bytes, routed_kept_bytes
from moesim.cost.work import Block
from moesim.model.operators import Gemm, written_bytes

Bytes = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moment:
    """What a stage is at: micro-batches held of each chunk, and the chunks whose passes run."""

    held: tuple[int, ...]
    at_work: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkActivations:
    """Bytes that one chunk holds, by the ranks of its experts."""

    once: Bytes
    each: Bytes
    working: float
    """What one layer needs while it runs, beyond what is kept."""


def chunk_activations(
    found: Sequence[Block], recompute: tuple[str, ...], offload_layers: int
) -> ChunkActivations:
    """Return what a chunk of these blocks holds."""
    one, two = (_by_rank(on_device(found, offload_layers, n), recompute) for n in (1, 2))
    distinct = {id(block): block for block in found}.values()
    working = max((_working_set(block, recompute) for block in distinct), default=0.0)
    return ChunkActivations(once=2 * one - two, each=two - one, working=working)


@dataclass(frozen=True, slots=True)
class VariedActivations:
    """What one chunk holds where micro-batches differ."""

    whole: ChunkActivations
    """As if all were the micro-batch whose fullest rank has most."""
    each: Bytes
    """[micro-batches, ranks] what each of them adds."""


def varied_activations(
    found: Sequence[Block], rows: Sequence[Bytes], recompute: tuple[str, ...], offload_layers: int
) -> VariedActivations:
    """Return what a chunk of these blocks holds, those with experts at their highest load.

    `rows` [micro-batches, ranks] of each block with experts, in order: a rank keeps in proportion.
    """
    left, each = list(rows), np.zeros((1, 1))
    one, two = (on_device(found, offload_layers, n) for n in (1, 2))
    known: dict[int, tuple[float, float]] = {}
    for (block, once), (_, twice) in zip(one, two, strict=True):
        here = left.pop(0) if block.rank_rows else None
        if twice == once:
            continue
        if id(block) not in known:
            names = recompute if block.is_layer else ()
            skewed = routed_kept_bytes(block.operators, names) if any(block.rank_rows) else 0.0
            known[id(block)] = kept_bytes(block.operators, names), skewed
        kept, skewed = known[id(block)]
        each = each + (kept - skewed)
        if skewed and here is not None:
            each = each + skewed * (here / max(block.rank_rows))
    return VariedActivations(chunk_activations(found, recompute, offload_layers), each)


def at_moment(chunks: Sequence[ChunkActivations], moment: Moment) -> tuple[float, float]:
    """Return the bytes that the fullest rank keeps, and those at work."""
    kept = np.zeros(1)
    for chunk, count in zip(chunks, moment.held, strict=True):
        if count:
            kept = kept + chunk.once + count * chunk.each
    working = max((chunks[one].working for one in moment.at_work), default=0.0)
    return float(kept.max()), working


def fullest(chunks: Sequence[ChunkActivations], moments: Iterable[Moment]) -> tuple[float, float]:
    """Return the bytes kept and at work at the moment of the most in all."""
    distinct = dict.fromkeys(moments)
    return max((at_moment(chunks, one) for one in distinct), key=sum, default=(0.0, 0.0))


def _by_rank(held: list[tuple[Block, int]], recompute: tuple[str, ...]) -> Bytes:
    """Return the bytes of each rank that keeps so many micro-batches of each block."""
    known: dict[int, Bytes] = {}
    total = np.zeros(1)
    for block, count in held:
        if count:
            if id(block) not in known:
                known[id(block)] = _block_by_rank(block, recompute if block.is_layer else ())
            total = total + count * known[id(block)]
    return total


def _block_by_rank(block: Block, recompute: tuple[str, ...]) -> Bytes:
    kept = np.full(1, kept_bytes(block.operators, recompute))
    rows = np.asarray(block.rank_rows, dtype=np.float64)
    if not rows.any():
        return kept
    skewed = routed_kept_bytes(block.operators, recompute)
    share: Bytes = rows / rows.max()
    return kept - skewed + skewed * share


def _working_set(block: Block, recompute: tuple[str, ...]) -> float:
    """Return what a block needs while it runs, beyond what is kept.

    A layer: what recomputing it brings back. The end of the network: the logits and their gradient;
    a fused loss writes the gradient over the logits, which are kept already.
    """
    if not block.is_layer:
        if any(op.name == "cross_entropy" for op in block.operators):
            return 0.0
        logits = [op for op in block.operators if isinstance(op, Gemm)]
        return sum(2 * written_bytes(op) for op in logits)
    return kept_bytes(block.operators, ()) - kept_bytes(block.operators, recompute)
