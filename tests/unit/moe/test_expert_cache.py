"""Hits of a cache of experts: by hand, and against a cache that is filled and emptied."""

from collections import OrderedDict

import numpy as np
import pytest

from moesim.moe.expert_cache import fixed_hit_rate, lru_hit_rate
from moesim.moe.traces import Trace, counts_of, make_trace


def _trace(seed: int, tokens: int = 300) -> Trace:
    taste = np.random.default_rng(seed).gumbel(size=(2, tokens, 12)) + np.linspace(0, 2, 12)
    return make_trace(np.argsort(-taste, axis=2)[..., :3], np.array([tokens]), 12)


def test_requests_by_hand() -> None:
    # requests 0 1 0 2 1: the second 0 finds one other in between, the second 1 two
    trace = make_trace(np.array([[[0], [1], [0], [2], [1]]]), np.array([5]), 3)
    found = lru_hit_rate(trace, (1, 2, 3))
    assert found[:, 0].tolist() == [0.0, 0.2, 0.4]


def test_the_one_pass_equals_a_cache_that_is_filled_and_emptied() -> None:
    sizes = (1, 3, 4, 7, 12)
    for seed in range(4):
        trace = _trace(seed)
        found = lru_hit_rate(trace, sizes)
        for row, size in enumerate(sizes):
            for layer, ids in enumerate(trace.ids):
                cache: OrderedDict[int, None] = OrderedDict()
                hits = 0
                for expert in ids.ravel().tolist():
                    hits += expert in cache
                    cache[expert] = None
                    cache.move_to_end(expert)
                    if len(cache) > size:
                        cache.popitem(last=False)
                assert found[row, layer] == pytest.approx(hits / ids.size)


def test_fixed_set_by_hand() -> None:
    counts = np.array([[1, 5, 2, 2], [3, 3, 3, 1]])
    assert fixed_hit_rate(counts, (1, 2, 4)).tolist() == [[0.5, 0.3], [0.7, 0.6], [1.0, 1.0]]


def test_larger_caches_hit_more_and_independent_requests_favour_the_fixed_set() -> None:
    trace = _trace(9, 4000)
    used, kept = lru_hit_rate(trace, range(1, 13)), fixed_hit_rate(counts_of(trace), range(1, 13))
    assert (np.diff(used, axis=0) >= 0).all()
    assert (used <= kept).all()
    assert used[-1] == pytest.approx(1 - 12 / trace.ids[0].size)  # each misses once
