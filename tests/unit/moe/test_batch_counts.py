"""Counts of many batches at once: exact sums, the means and variances of their laws."""

import numpy as np
import pytest

from moesim import rng
from moesim.moe.batch_counts import draw_batches

SHARES = np.array([0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02, 0.0])
TOKENS, TOP_K = 500, 2
BATCHES = 4000
CHANCES = np.minimum(1.0, TOP_K * SHARES)
"""No share is above 1 / k, so that a token chooses an expert with k times its share."""


def _drawn(phi: float | None = None, tokens: int = TOKENS) -> np.ndarray:
    sizes = np.full(BATCHES, tokens, dtype=np.int64)
    return draw_batches(SHARES, sizes, TOP_K, rng.stream(1, "batches"), phi=phi)


@pytest.mark.parametrize("phi", [None, 2.0])
def test_each_batch_chooses_k_distinct_experts_a_token(phi: float | None) -> None:
    counts = _drawn(phi)
    assert (counts.sum(axis=1) == TOKENS * TOP_K).all()
    assert counts.min() >= 0
    assert counts.max() <= TOKENS
    assert (counts[:, -1] == 0).all()


def test_counts_have_the_mean_and_variance_of_a_binomial() -> None:
    """T p and T p (1 - p); the mean of 4,000 draws is off by 4 standard errors at most."""
    counts = _drawn()
    variance = TOKENS * CHANCES * (1 - CHANCES)
    error = np.abs(counts.mean(axis=0) - TOKENS * CHANCES)
    assert (error <= 4 * np.sqrt(variance / BATCHES) + 1e-9).all()
    assert counts.var(axis=0)[:-1] == pytest.approx(variance[:-1], rel=0.1)


def test_a_burst_factor_widens_the_variance_by_the_design() -> None:
    """phi / phi(independent), with phi(independent) = 1 - CV^2 k / (E - k)."""
    counts = _drawn(2.0)
    cv = float(CHANCES.std() / CHANCES.mean())
    design = 2.0 / (1 - cv**2 * TOP_K / (len(SHARES) - TOP_K))
    assert counts.mean(axis=0)[:-1] == pytest.approx(TOKENS * CHANCES[:-1], rel=0.05)
    variance = design * TOKENS * CHANCES * (1 - CHANCES)
    assert counts.var(axis=0)[:-1] == pytest.approx(variance[:-1], rel=0.15)


def test_experts_that_every_token_chooses_have_all_tokens() -> None:
    shares, sizes = np.array([0.5, 0.25, 0.25]), np.array([10, 20, 0])
    counts = draw_batches(shares, sizes, 2, rng.stream(2, "batches"))
    assert counts[:, 0].tolist() == [10, 20, 0]
    assert counts.sum(axis=1).tolist() == [20, 40, 0]


def test_as_many_choices_as_experts_leave_nothing_to_draw() -> None:
    counts = draw_batches(np.array([0.9, 0.1]), np.array([7, 8]), 2, rng.stream(3, "batches"))
    assert counts.tolist() == [[7, 7], [8, 8]]
