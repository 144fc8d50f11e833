"""Names of experts mean nothing, and what is drawn for one layer leaves the others as they are."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.moe.counts import draw_counts
from moesim.moe.kept_rows import rows_after
from moesim.moe.loads import LoadLaw, draw_shares, imbalance
from moesim.moe.placed_rows import rank_loads
from moesim.moe.placement import PLACEMENTS, Room
from moesim.study.routing import draw
from tests.laws.small_runs import resolved

COUNTS = st.lists(st.integers(0, 500), min_size=16, max_size=16, unique=True)


@given(counts=COUNTS, order=st.permutations(range(16)), slots=st.integers(0, 400))
def test_other_names_change_neither_imbalance_nor_drops(
    counts: list[int], order: list[int], slots: int
) -> None:
    one, other = np.array(counts), np.array(counts)[order]
    assert imbalance(one) == imbalance(other)
    assert rows_after(one, slots).sum() == rows_after(other, slots).sum()


@pytest.mark.parametrize("rule", ["greedy", "replicated"])
@given(seed=st.integers(0, 10**6), order=st.permutations(range(16)))
def test_placements_by_load_see_loads_not_names(rule: str, seed: int, order: list[int]) -> None:
    """Large loads of no common measure leave no ties that names would break."""
    counts = np.random.default_rng(seed).integers(10**8, 10**9, 16)
    room = Room(ranks=4, slots_per_rank=4 if rule == "greedy" else 6)
    rows = []
    for loads in (counts, counts[order]):
        placement = PLACEMENTS[rule](loads.astype(np.float64), room)
        rows.append(np.sort(rank_loads(loads, placement)).tolist())
    assert rows[0] == rows[1]


@pytest.mark.parametrize("law", ["uniform", "dirichlet", "lognormal"])
def test_exchangeable_loads_are_alike_under_other_names(law: str) -> None:
    """Fullest contiguous rank over the mean, 2,000 layers with and without new names: 3 sigma."""
    generator, found = np.random.default_rng(8), []
    for renamed in (False, True):
        ratios = []
        for _ in range(2000):
            shares = draw_shares(LoadLaw(law=law, cv=0.8), 32, generator)
            if renamed:
                shares = shares[::-1]
            rows = draw_counts(shares, 256, 4, generator).reshape(8, 4).sum(axis=1)
            ratios.append(rows.max() / rows.mean())
        found.append((np.mean(ratios), np.std(ratios) / np.sqrt(len(ratios))))
    (mean, error), (other, other_error) = found
    assert abs(mean - other) < 3 * np.hypot(error, other_error)


def test_another_layer_leaves_the_draws_of_the_others_as_they_are(tmp_path: Path) -> None:
    skewed = {"routing": {"load": {"law": "dirichlet", "cv": 0.7}}}
    few, many = (draw(resolved(tmp_path, skewed, {"layers": layers}), step=0) for layers in (6, 9))
    assert len(many) == 9
    assert all(many[number] == load for number, load in few.items())


def test_another_metric_leaves_the_draws_as_they_are(tmp_path: Path) -> None:
    """A capacity is judged on the same choices that are made without one."""
    skewed = {"routing": {"load": {"law": "dirichlet", "cv": 0.7}}}
    limited = {"routing": {**skewed["routing"], "capacity": {"factor": 1.1}}}
    free, dropping = (draw(resolved(tmp_path, one), step=0) for one in (skewed, limited))
    assert {n: one.routed for n, one in free.items()} == {n: o.routed for n, o in dropping.items()}
    assert {n: one.expert_imbalance for n, one in free.items()} == {
        number: one.expert_imbalance for number, one in dropping.items()
    }
