"""Counts after a capacity: conserved, bounded, and shared out as single tokens are."""

import numpy as np
import pytest

from moesim.moe.capacity import CapacityRule
from moesim.moe.kept_rows import (
    computed_rows,
    rows_after,
    rows_in_budget,
    sent_rows,
)


def test_each_group_has_slots_of_its_own() -> None:
    routed = np.array([[5, 0, 3], [2, 9, 3]])
    assert rows_after(routed, 3).tolist() == [[3, 0, 3], [2, 3, 3]]
    assert rows_after(routed, 0).sum() == 0


def test_device_budget_takes_from_the_experts_of_the_device_alike() -> None:
    routed, generator = np.array([60, 20, 5, 5]), np.random.default_rng(1)
    draws = np.stack([rows_in_budget(routed, 2, 40, generator) for _ in range(2000)])
    assert np.all(draws[:, 2:] == 5)
    assert np.all(draws[:, :2].sum(axis=1) == 40)
    assert draws[:, 0].mean() == pytest.approx(30, abs=0.2)
    spared = rows_in_budget(routed, 2, 40, generator, spared_fraction=0.9)
    assert spared.sum() == 72 + 10


def test_what_is_sent_and_computed_by_hand() -> None:
    """Two groups, three experts, four slots: 24 slots, 22 assignments, of which 19 fit."""
    routed = np.array([[6, 2, 3], [4, 5, 2]])
    kept = rows_after(routed, 4).sum(axis=0)
    wanted = routed.sum(axis=0)  # 10, 7 and 5
    rules = {name: CapacityRule(formula=name) for name in ("switch", "megatron", "megablocks")}
    sent = {name: int(sent_rows(rule, wanted, kept, 8).sum()) for name, rule in rules.items()}
    computed = {name: int(computed_rows(rule, kept, 8, 1).sum()) for name, rule in rules.items()}
    # Megatron drops before it sends and pads nothing; MegaBlocks sends all and pads afterwards
    assert sent == {"switch": 24, "megatron": 19, "megablocks": 22}
    assert computed == {"switch": 24, "megatron": 19, "megablocks": 24}


def test_blocks_by_hand() -> None:
    rows = np.array([10, 7, 5, 0])
    assert computed_rows(None, rows, 0, 8).tolist() == [16, 8, 8, 0]
    assert sent_rows(None, rows, rows, 0).tolist() == rows.tolist()
    loose = CapacityRule(formula="switch", pad=False)
    assert computed_rows(loose, rows, 99, 8).tolist() == [16, 8, 8, 0]


def test_a_device_budget_has_no_buffers_to_pad() -> None:
    rows = np.array([3, 4])
    rule = CapacityRule(formula="deepseek_v2", pad=True)
    assert computed_rows(rule, rows, 50, 1).tolist() == [3, 4]
    assert sent_rows(rule, np.array([9, 9]), rows, 50).tolist() == [3, 4]
