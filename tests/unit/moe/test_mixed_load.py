"""Batches of several domains in one layer: drawn by their shares, or replayed."""

import numpy as np

from moesim.moe.counts import Batch
from moesim.moe.domains import Mixture
from moesim.moe.mixed_load import MixedLoad, mixed_counts
from moesim.moe.traces import CountTable, make_trace

BATCH = Batch(tokens=60, top_k=1)


def _counts(load: MixedLoad, seed: int) -> list[int]:
    streams = np.random.default_rng(1), np.random.default_rng(seed)
    return [int(count) for count in mixed_counts(load, BATCH, *streams)]


def _mixture(weights: tuple[float, ...], sequence_tokens: int = 20) -> Mixture:
    shares = np.array([[[1.0, 0.0, 0.0]], [[0.0, 0.5, 0.5]]])[: len(weights)]
    return Mixture(shares=shares, weights=weights, sequence_tokens=sequence_tokens)


def test_the_composition_does_not_depend_on_the_layer() -> None:
    """Three sequences of 20 tokens: expert 0 has those of the first domain in every layer."""
    load = MixedLoad(mixture=_mixture((1, 1)), composition=(0, "x"))
    found = [_counts(load, seed) for seed in range(5)]
    assert len({counts[0] for counts in found}) == 1
    assert found[0][0] in (0, 20, 40, 60)
    assert len({tuple(counts) for counts in found}) > 1
    assert all(sum(counts) == 60 for counts in found)


def test_tables_are_scaled_and_tokens_repeated() -> None:
    """60 tokens by 1 : 2 : 3, and twenty rounds of a trace of three tokens."""
    table = CountTable(np.array([[10, 20, 30]]), (0,), 1, "m", "c", "text", "top1")
    alone = MixedLoad(mixture=_mixture((1,)), composition=(0, "x"), replayed=(table,))
    assert _counts(alone, 0) == [10, 20, 30]
    trace = make_trace(np.array([[[2], [1], [0]]]), np.array([3]), 3)
    tokens = MixedLoad(mixture=_mixture((1,)), composition=(0, "x"), replayed=(trace,))
    assert _counts(tokens, 0) == [20, 20, 20]
