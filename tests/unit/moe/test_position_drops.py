"""Drops along the sequence: against sums of tails, by hand, and the mean."""

import numpy as np
import pytest
from scipy import stats

from moesim.moe import drops, position_drops


@pytest.mark.parametrize(
    "size",
    [(50, 8, 2, 10), (1024, 64, 6, 96), (100, 4, 4, 60), (50, 8, 1, 0), (50, 8, 1, 1),
     (50, 8, 2, 49), (50, 8, 2, 50), (50, 8, 2, 10**9), (4096, 8, 1, 400)],
)  # fmt: skip
def test_late_tokens_find_the_expert_full(size: tuple[int, int, int, int]) -> None:
    """A token at p is dropped if at least C of the p before it chose its expert."""
    tokens, experts, k, capacity = size
    found = position_drops.uniform(tokens, experts, k, capacity)
    expected = stats.binom.sf(capacity - 1, np.arange(tokens), k / experts)
    np.testing.assert_allclose(found, expected, atol=1e-11)
    assert np.all(np.diff(found) >= 0)
    assert found.mean() == pytest.approx(drops.uniform(*size), abs=1e-11)


@pytest.mark.parametrize(
    "size",
    [(50, 8, 10, 0.5), (1024, 64, 16, 2.0), (1024, 64, 20, 0.05), (60, 8, 0, 1.0),
     (50, 8, 49, 1.0), (50, 8, 70, 1.0)],
)  # fmt: skip
def test_dirichlet_shares_along_the_sequence(size: tuple[int, int, int, float]) -> None:
    """The expert that a token chose has a share drawn in proportion to its size."""
    tokens, experts, capacity, a = size
    found = position_drops.dirichlet(tokens, experts, capacity, a)
    expected = stats.betabinom.sf(capacity - 1, np.arange(tokens), a + 1, (experts - 1) * a)
    if capacity == 0:
        expected = np.ones(tokens)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    mean = drops.dirichlet(tokens, experts, 1, capacity, a)
    assert found.mean() == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize("size", [(50, 8, 2, 10), (40, 6, 3, 18), (30, 4, 4, 20), (64, 64, 2, 2)])
def test_placing_first_choices_first_moves_drops_but_not_their_number(
    size: tuple[int, int, int, int],
) -> None:
    found = position_drops.uniform_by_choice(*size, positions=np.arange(size[0]))
    assert found.mean() == pytest.approx(drops.uniform(*size), abs=1e-12)
    assert np.all(np.diff(found, axis=1) >= -1e-12)  # later choices lose more
    assert np.all(np.diff(found, axis=0) >= -1e-12)  # and later tokens


def test_by_choice_by_hand() -> None:
    # two tokens, two experts, both choices, one slot: each expert is somebody's first choice.
    # First choices differ (1/2): both kept, no second one. Same (1/2): token 0 has both slots
    # first: token 1 loses its first choice; seconds meet at the other expert: token 0 has it.
    found = position_drops.uniform_by_choice(2, 2, 2, 1, positions=np.array([0, 1]))
    np.testing.assert_allclose(found, [[0.0, 0.5], [0.5, 1.0]], atol=1e-12)


def test_a_million_tokens() -> None:
    found = position_drops.uniform(10**6, 256, 8, 31_250)
    assert found.mean() == pytest.approx(drops.uniform(10**6, 256, 8, 31_250), rel=1e-7)
