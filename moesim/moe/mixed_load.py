"""The load of a batch that mixes domains: drawn by their shares, or replayed from their traces."""

from dataclasses import dataclass

import numpy as np

from moesim.moe.counts import Batch
from moesim.moe.domains import Mixture, draw_split, split
from moesim.moe.loads import Counts
from moesim.moe.trace_law import replay, replay_counts
from moesim.moe.traces import CountTable, Trace, counts_in


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixedLoad:
    """Domains in one layer, and how a batch is made of them."""

    mixture: Mixture
    """Shares of this layer, [domains, 1, experts]."""
    composition: tuple[int, str]
    """Seed and name of the stream that says which domain a sequence is of; layers share it, since a
    sequence takes its domain, and a replayed token itself, through the whole network."""
    replayed: tuple[Trace | CountTable, ...] = ()
    """What each domain replays in this layer; empty: counts are drawn by the shares."""


def mixed_counts(
    load: MixedLoad, batch: Batch, composition: np.random.Generator, generator: np.random.Generator
) -> Counts:
    """Return the counts of the experts for a batch; they sum to tokens * top_k."""
    tokens = split(load.mixture, batch.tokens, composition)
    if not load.replayed:
        return np.asarray(draw_split(load.mixture, batch, tokens, [[generator]] * len(tokens))[0])
    total = np.zeros(load.mixture.shares.shape[-1], dtype=np.int64)
    for one, number in zip(load.replayed, tokens.tolist(), strict=True):
        if number:
            total += _replayed(one, number, composition)
    return total


def _replayed(one: Trace | CountTable, tokens: int, generator: np.random.Generator) -> Counts:
    """Return the counts of consecutive tokens of a trace, or a table's scaled to their number."""
    if isinstance(one, CountTable):
        return np.asarray(replay_counts(one, tokens)[0])
    return np.asarray(counts_in(replay(one, tokens, generator)[0], one.experts)[0])
