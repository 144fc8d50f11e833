"""What a capacity leaves of counts, where single tokens are not routed; what is sent and computed.

Within an expert one assignment is as good as another: an expert keeps min(n, C) of n by any
policy. Policies differ in whose assignments they are.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.moe.blocks import padded_rows
from moesim.moe.capacity import CapacityRule, pads
from moesim.moe.habits import HABITS

Counts = NDArray[np.int64]


def rows_after(counts: Counts, slots: int) -> Counts:
    """Return the kept rows where each row counts[group] is a routing group: min(n, C)."""
    return np.minimum(counts, slots)


def rows_in_budget(
    counts: Counts,
    devices: int,
    budget: int,
    generator: np.random.Generator,
    *,
    spared_fraction: float = 0.0,
) -> Counts:
    """Return the kept rows of each expert [expert] where its device accepts `budget` rows.

    Experts lie on the devices in order. Gate weights are taken to be alike in all experts of a
    device, so that each row is as likely to stay: a hypergeometric draw. Rows of spared sequences
    stay in any case.
    """
    local = counts.reshape(devices, -1).T
    whole = local.sum(axis=0)
    limit = np.maximum(budget, np.ceil(spared_fraction * whole).astype(np.int64))
    return _shared_out(local, np.minimum(whole, limit), generator).T.reshape(-1)


def _shared_out(counts: Counts, kept: Counts, generator: np.random.Generator) -> Counts:
    """Draw which of counts[part, column] are among the kept[column]; parts are alike."""
    rest, left, found = counts.sum(axis=0), kept.copy(), np.empty_like(counts)
    for part, here in enumerate(counts):
        rest = rest - here
        found[part] = generator.hypergeometric(here, rest, left)
        left = left - found[part]
    return found


def is_padded(rule: CapacityRule | None) -> bool:
    """Return whether experts compute all their slots; a device budget has no buffers to pad."""
    return rule is not None and pads(rule) and not HABITS[rule.formula].per_device


def sent_rows(
    rule: CapacityRule | None, routed: Counts, kept: Counts, slots: int | Counts
) -> Counts:
    """Return the rows that each expert is sent, of counts [E] and `slots` in all groups together.

    Buffers sent are the padded ones (Switch, section 5.4: E * C rows, whatever the load), the kept
    rows (Megatron drops before it sends) or all routed rows (MegaBlocks drops and pads after the
    exchange). Without padding nobody sends empty slots.
    """
    if rule is not None and HABITS[rule.formula].sends == "routed":
        return routed
    return np.full_like(kept, slots) if is_padded(rule) else kept


def computed_rows(
    rule: CapacityRule | None, kept: Counts, slots: int | Counts, block_rows: int
) -> Counts:
    """Return the rows that each expert computes where it lies, of the rows `kept` there.

    All slots where buffers are padded to them; else the kept rows, rounded up to whole blocks.
    """
    return np.full_like(kept, slots) if is_padded(rule) else padded_rows(kept, block_rows)
