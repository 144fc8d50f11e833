"""What a capacity leaves of counts, where single tokens are not routed.

Within an expert one assignment is as good as another: an expert keeps min(n, C) of n by any
policy. Policies differ in whose assignments they are.
"""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def rows_after(counts: Counts, slots: int) -> Counts:
    """Return the kept rows where each row counts[group] is a routing group: min(n, C)."""
    return np.minimum(counts, slots)


def rows_after_shared(
    counts: Counts, slots: int, policy: str, generator: np.random.Generator | None = None
) -> Counts:
    """Return the kept rows [source rank, expert] where all ranks share the slots of an expert.

    By position the tokens of rank 0 come first, as MegaBlocks receives them. By weight or at
    random every assignment is as likely to stay: a hypergeometric draw.
    """
    if policy == "position":
        before = np.cumsum(counts, axis=0) - counts
        return np.asarray(np.clip(slots - before, 0, counts))
    if generator is None:
        raise ValueError(f"the drop policy {policy} needs a generator to share out the slots")
    return _shared_out(counts, np.minimum(counts.sum(axis=0), slots), generator)


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
