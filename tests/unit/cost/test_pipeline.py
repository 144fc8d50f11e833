"""Layers over pipeline chunks: complete, in order, and no better split exists."""

from itertools import combinations, pairwise
from random import Random

import pytest

from moesim.cost.pipeline import balanced, chunks
from moesim.model.named import load_named


def _slowest(weights: list[float], after: float, sizes: list[int]) -> float:
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    loads = [sum(weights[start:end]) for start, end in pairwise(ends)]
    loads[-1] += after
    return max(loads)


def test_no_split_has_a_lighter_heaviest_part() -> None:
    """Against all ways to cut up to nine weights into up to five parts."""
    random = Random(3)
    for _ in range(200):
        weights = [random.choice([1.0, 1.0, 2.0, random.uniform(0.1, 5)]) for _ in range(9)]
        parts, after = random.randint(1, 5), random.choice([0.0, random.uniform(0, 6)])
        best = min(
            _slowest(weights, after, [b - a for a, b in pairwise([0, *cuts, 9])])
            for cuts in combinations(range(1, 9), parts - 1)
        )
        sizes = balanced(weights, after, parts)
        assert len(sizes) == parts
        assert sum(sizes) == 9
        assert min(sizes) >= 1
        assert _slowest(weights, after, sizes) == pytest.approx(best, rel=1e-9)


def test_61_layers_on_16_stages() -> None:
    # 61 = 15 * 4 + 1: with equal layers no stage can have fewer than four at most
    sizes = balanced([1.0] * 61, 0.0, 16)
    assert sum(sizes) == 61
    assert max(sizes) == 4
    # with two layers' worth of logits and prediction module the last stage has two fewer
    assert balanced([1.0] * 61, 2.0, 16)[-1] == 2


def test_chunks_are_the_network_in_order() -> None:
    architecture = load_named("deepseek-v3")
    sizes = balanced([1.0] * 61, 1.0, 16)
    stages = chunks(architecture, 16, 1, sizes)
    numbers = [placed.number for stage in stages for chunk in stage for placed in chunk.layers]
    assert numbers == list(range(61))
    assert [stage[0].has_embedding for stage in stages] == [True] + [False] * 15
    assert [stage[0].has_logits for stage in stages] == [False] * 15 + [True]
    assert [stage[0].mtp_layers for stage in stages] == [0] * 15 + [1]


def test_interleaved_chunks_go_round_the_stages() -> None:
    # 32 layers, 4 stages, 2 chunks each: stage 1 has layers 4 to 7 and 20 to 23
    stages = chunks(load_named("mixtral-8x7b"), 4, 2)
    held = [[placed.number for placed in chunk.layers] for chunk in stages[1]]
    assert held == [[4, 5, 6, 7], [20, 21, 22, 23]]
    assert stages[3][1].has_logits
    assert not stages[3][0].has_logits
