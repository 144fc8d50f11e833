"""Routing of one layer, drawn: rows by rank, drops and padding by hand."""

import numpy as np
import pytest

from moesim.moe import drops
from moesim.moe.assignment import LayerLoad, Router, assign
from moesim.moe.capacity import CapacityRule
from moesim.moe.loads import LoadLaw


def _assign(seed: int = 0, **changes: object) -> LayerLoad:
    base: dict[str, object] = {
        "tokens": 1024, "group_tokens": 256, "experts": 8, "top_k": 2, "ranks": 4,
        "law": LoadLaw(),
    }  # fmt: skip
    return assign(Router(**{**base, **changes}), np.random.default_rng(seed))  # type: ignore[arg-type]


def test_even_loads_by_hand() -> None:
    # 1024 tokens, two choices: 2048 assignments on 8 experts of 4 ranks, 256 each
    load = _assign()
    assert load.fullest_rows == (256, 256)
    assert (load.mean_rows, load.routed, load.computed, load.dropped) == (512.0, 2048, 2048, 0)
    assert (load.expert_imbalance, load.rank_imbalance) == (1.0, 1.0)
    assert load.padded_slots is None
    assert load.copies == 2.0


def test_capacity_by_hand() -> None:
    # a group of 256 tokens: 512 assignments, 64 per expert; factor 0.75 leaves 48 slots
    load = _assign(capacity=CapacityRule(factor=0.75))
    assert load.fullest_rows == (192, 192)  # four groups
    assert (load.computed, load.dropped) == (1536, 512)
    assert load.copies == 1.5  # three of four choices found a slot
    assert load.padded_slots is None


def test_padding_by_hand() -> None:
    # factor 1.5: 96 slots, 64 filled; buffers of four groups hold 384 rows per expert
    load = _assign(capacity=CapacityRule(factor=1.5, pad=True))
    assert load.padded_slots == 96
    assert load.fullest_rows == (384, 384)
    assert (load.computed, load.dropped, load.rank_imbalance) == (2048, 0, 1.0)
    assert load.copies == 3.0  # 8 * 384 slots of 1024 tokens


def test_tokens_beyond_the_last_whole_group_have_slots_of_their_own() -> None:
    """1000 tokens in groups of 300: three whole ones and one of 100.

    Slots at factor 1: ceil(300 * 2 / 8) = 75 and ceil(100 * 2 / 8) = 25, so 3 * 75 + 25 = 250 per
    expert, which hold the even load of 2000 / 8; padded or not, 2000 rows are sent.
    """
    for pad in (False, True):
        rule = CapacityRule(factor=1.0, pad=pad)
        load = _assign(tokens=1000, group_tokens=300, capacity=rule)
        assert load.fullest_rows == (250, 250)
        assert (load.routed, load.dropped, load.copies) == (2000, 0, 2.0)
        assert load.padded_slots == (75 if pad else None)


def test_even_loads_are_even_where_a_group_is_smaller_than_the_experts() -> None:
    # 64 ranks bring 8 tokens with 8 choices of 128 experts: 4096 assignments, 32 per expert
    load = _assign(tokens=512, group_tokens=8, experts=128, top_k=8, ranks=64)
    assert load.expert_imbalance == 1.0
    assert load.fullest_rows == (32, 32)


def test_drawn_drops_scatter_round_the_closed_form() -> None:
    """Uniform top-1 choices; 200 draws of eight groups, within three standard errors."""
    rule = CapacityRule(factor=1.0)
    found = [
        _assign(
            seed, tokens=2048, top_k=1, experts=32, law=LoadLaw(law="uniform"), capacity=rule
        ).dropped
        / 2048
        for seed in range(200)
    ]
    error = float(np.std(found)) / 200**0.5
    expected = drops.uniform(256, 32, 1, 8)
    assert abs(float(np.mean(found)) - expected) < 3 * error


def test_rank_with_the_most_rows_is_reported() -> None:
    for seed in range(20):
        load = _assign(seed, law=LoadLaw(law="dirichlet", cv=1.0))
        assert len(load.fullest_rows) == 2
        assert sum(load.fullest_rows) == pytest.approx(load.rank_imbalance * 512)
        assert 1.0 <= load.rank_imbalance <= load.expert_imbalance


def test_capacity_that_follows_the_load_drops_nothing_and_pads_to_the_fullest() -> None:
    # Tutel at factor 0 on four groups: every buffer has as many slots as the fullest expert rows
    rule = CapacityRule(formula="tutel", factor=0.0, pad=True)
    law = LoadLaw(law="dirichlet", cv=0.5)
    load = _assign(5, law=law, capacity=rule)
    assert (load.dropped, load.computed) == (0, 2048)
    assert load.padded_slots is not None
    assert load.padded_slots > 64  # the mean
    assert load.fullest_rows == (4 * load.padded_slots,) * 2
    loose = _assign(5, law=law, capacity=CapacityRule(mode="none", pad=False))
    assert (loose.dropped, loose.padded_slots) == (0, None)


def test_experts_of_a_rank_share_a_device_budget() -> None:
    # one group of 1024 tokens, 2048 assignments, four ranks: 512 rows each and no more
    rule = CapacityRule(formula="deepseek_v2", factor=1.0)
    law = LoadLaw(law="lognormal", cv=0.8)
    load = _assign(3, group_tokens=1024, law=law, capacity=rule)
    assert load.dropped > 0
    assert sum(load.fullest_rows) == 512
    assert load.mean_rows <= 512
    assert load.padded_slots is None
    spared = CapacityRule(formula="deepseek_v2", factor=0.001, spared_fraction=1.0)
    assert _assign(3, group_tokens=1024, law=law, capacity=spared).dropped == 0
