"""Distinct ranks and groups of tokens: cited figures, enumeration, real routing."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.moe.fan_out import (
    distinct,
    parts_of,
    score_limited_reach,
    typical_reach,
    uniform_reach,
)
from moesim.moe.placement import Room, contiguous
from moesim.moe.traffic import Destinations, fan_out, limited_fan_out
from tests.shared_files import shared

DEEPSEEK_V3 = Destinations(experts=256, top_k=8, ranks=64, domains=8, groups=8, groups_per_token=4)


def test_distinct_by_hand() -> None:
    parts = np.array([[0, 0, 0], [2, 1, 2], [3, 1, 0], [-1, 4, -1], [-1, -1, -1]])
    assert distinct(parts).tolist() == [1, 2, 3, 1, 0]


def test_parts_by_hand() -> None:
    assert parts_of(np.array([[0, 3], [-1, 2]]), np.array([0, 0, 1, 1])).tolist() == [
        [0, 1], [-1, 1],
    ]  # fmt: skip


def test_deepseek_v3_reaches_four_of_eight_nodes_by_scores() -> None:
    """20,000 tokens of independent scores, two best per group, default_rng(0): 3.954 nodes.

    A group is picked for its high scores, so nearly each of the four is reached; four groups
    picked at random would be reached less (3.63).
    """
    found = score_limited_reach(DEEPSEEK_V3, np.random.default_rng(0))
    assert found.domains == pytest.approx(3.954, abs=6e-4)
    assert uniform_reach(DEEPSEEK_V3).domains == pytest.approx(3.629, abs=6e-4)
    assert uniform_reach(DEEPSEEK_V3).ranks == limited_fan_out(DEEPSEEK_V3, 64)


def test_no_limit_reaches_what_uniform_choices_do() -> None:
    where = Destinations(experts=64, top_k=6, ranks=8, domains=1)
    found = score_limited_reach(where, np.random.default_rng(6)).ranks
    # the spread of one token's distinct ranks is below one: 0.03 is four standard errors
    assert found == pytest.approx(fan_out(8, 64, 6), abs=0.03)


@pytest.mark.parametrize(("ranks", "expected"), [(4, 3.355), (8, 4.553), (16, 5.334), (32, 5.764)])
def test_real_routing_of_deepseek_v2_lite(ranks: int, expected: float) -> None:
    """Distinct ranks of four tasks and 26 layers: within 0.4 % of uniform choices."""
    data = np.load(shared("expert-loads/deepseek_v2_lite_esft_routing_trace.npz"))
    slots = contiguous(np.ones(64), Room(ranks=ranks, slots_per_rank=64 // ranks))
    rank_of = np.empty(64, dtype=np.int64)
    rank_of[slots.expert_of_slot] = np.arange(ranks)[:, None]
    tasks = ("intent", "law", "summary", "translation")
    found = np.mean(
        [
            distinct(parts_of(layer.astype(np.int64), rank_of)).mean()
            for task in tasks
            for layer in data[f"{task}_ids"]
        ]
    )
    assert found == pytest.approx(expected, abs=6e-4)
    assert found == pytest.approx(fan_out(ranks, 64, 6), rel=0.004)


def test_what_is_reached_follows_the_family_of_the_limit() -> None:
    """DeepSeek-V2's three devices: 2.995 by best expert; the two best of a group pull it in more.

    DeepSeek-V3 with four of eight nodes: 3.954 by the two best, 3.983 by the best alone.
    """
    v2 = Destinations(
        experts=160, top_k=6, ranks=8, domains=1, groups=8, groups_per_token=3, group_best=1
    )
    assert typical_reach(v2).ranks == pytest.approx(2.995, abs=5e-4)
    assert typical_reach(DEEPSEEK_V3).domains == pytest.approx(3.954, abs=0.01)
    best = typical_reach(replace(DEEPSEEK_V3, group_best=1))
    assert best.domains == pytest.approx(3.983, abs=1e-3)
    assert best.domains <= best.ranks <= 8
