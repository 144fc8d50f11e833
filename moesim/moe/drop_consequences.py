"""What a drop does: who passes on the residual path, what is computed, what is sent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.moe.blocks import padded_rows
from moesim.moe.capacity import CapacityRule, pads
from moesim.moe.habits import HABITS

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequences:
    """One layer, all routing groups. routed = kept + dropped, computed = kept + padded, exactly."""

    routed: int
    """Assignments of the router, at most k per token."""
    kept: int
    """Assignments that found a slot; the others add nothing to the residual path."""
    dropped: int
    computed_rows: int
    """Rows through the experts, padding included."""
    padded_rows: int
    """Rows through the experts that hold no token."""
    sent_copies: int
    """Rows of the hidden width in one direction of the exchange, own rank included."""
    wasted_fraction: float
    """Padded over computed rows."""


def consequences(rule: CapacityRule, counts: Counts, kept: Counts, slots: int) -> Consequences:
    """Return what became of counts[group, expert] of which `kept` found one of `slots` slots.

    With padding every expert computes all slots of every group. Without, it computes the kept
    rows, rounded up to whole blocks. Buffers sent are the padded ones (Switch, section 5.4: E * C
    rows, whatever the load), the kept rows (Megatron drops before it sends) or all routed rows
    (MegaBlocks drops and pads after the exchange). Without padding nobody sends empty slots.
    """
    routed, stayed = int(counts.sum()), int(kept.sum())
    if pads(rule):
        computed = counts.size * slots
    else:
        computed = int(padded_rows(kept.sum(axis=0), rule.block).sum())
    sends = HABITS[rule.formula].sends
    sent = routed if sends == "routed" else counts.size * slots if pads(rule) else stayed
    return Consequences(
        routed=routed,
        kept=stayed,
        dropped=routed - stayed,
        computed_rows=computed,
        padded_rows=computed - stayed,
        sent_copies=sent,
        wasted_fraction=(computed - stayed) / computed if computed else 0.0,
    )
