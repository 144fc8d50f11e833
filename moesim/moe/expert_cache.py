"""How often a cache of a layer's experts holds the one a token asks for: what offloading saves.

Hit rates are per layer, each layer having a cache of its own, its tokens coming one after the
other. On real DeepSeek-V2-Lite routing the best fixed set beats the least-recently-used rule.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.moe.loads import Counts
from moesim.moe.traces import Trace

Array = NDArray[np.float64]


def lru_hit_rate(trace: Trace, sizes: Sequence[int]) -> Array:
    """Return [sizes, layers]: hits of caches that drop the least recently used expert.

    A request hits where fewer than `size` distinct experts were asked for since the last time
    (Mattson et al. 1970, IBM Systems Journal 9:78: one pass serves all sizes). The choices of a
    token come in the order of the trace; the cache starts empty.
    """
    limits = np.asarray(sizes)
    found = [_hits(layer.ravel(), trace.experts, limits) for layer in trace.ids]
    return np.stack(found, axis=1)


def _hits(requests: NDArray[np.int16], experts: int, sizes: NDArray[np.int64]) -> Array:
    at = np.arange(len(requests), dtype=np.int32)
    last = np.full((len(requests) + 1, experts), -1, dtype=np.int32)
    last[at + 1, requests] = at
    # row i: when each expert was asked for last, before request i
    last = np.maximum.accumulate(last, axis=0)[:-1]
    before = last[at, requests]
    distance = (last > before[:, None]).sum(axis=1)
    distance[before < 0] = experts  # never asked for yet
    return np.asarray((distance < sizes[:, None]).mean(axis=1))


def fixed_hit_rate(counts: Counts, sizes: Sequence[int]) -> Array:
    """Return [sizes, layers]: hits of the experts that are asked for most, chosen with hindsight.

    No set of that size that stays put does better. `counts` are [layers, experts].
    """
    largest_first = -np.sort(-counts, axis=1)
    share = np.cumsum(largest_first, axis=1) / counts.sum(axis=1, keepdims=True)
    return np.stack([share[:, size - 1] for size in sizes])
