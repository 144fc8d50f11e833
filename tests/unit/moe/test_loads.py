"""Laws of expert shares: their moments, and counts that sum to what was routed."""

from random import Random

import numpy as np
import pytest

from moesim.moe.counts import draw_counts
from moesim.moe.loads import (
    SHARES,
    LoadLaw,
    draw_shares,
    even_counts,
    imbalance,
    rank_rows,
)
from moesim.moe.loads import dirichlet as dirichlet_shares
from moesim.moe.loads import lognormal as lognormal_shares


@pytest.mark.parametrize("law", sorted(SHARES))
def test_counts_sum_to_the_assignments_and_no_expert_gets_a_token_twice(law: str) -> None:
    random, generator = Random(2), np.random.default_rng(2)
    for _ in range(200):
        experts = random.choice([1, 2, 7, 64])
        top_k, tokens = random.randint(1, experts), random.choice([1, 5, 64, 1000])
        cv = random.choice([0.0, 0.5, 5.0])
        shares = draw_shares(LoadLaw(law=law, cv=cv), experts, generator)
        counts = draw_counts(shares, tokens, top_k, generator)
        assert counts.shape == (experts,)
        assert int(counts.sum()) == tokens * top_k
        assert int(counts.min()) >= 0
        assert int(counts.max()) <= tokens


@pytest.mark.parametrize("experts", [8, 64, 256])
@pytest.mark.parametrize("cv", [0.1, 0.5, 1.0])
def test_dirichlet_shares_have_the_coefficient_of_variation(experts: int, cv: float) -> None:
    """E[s] = 1 / E and E[(E s - 1)^2] = cv^2, within three standard errors of the sample."""
    generator = np.random.default_rng(7)
    draws = np.stack([dirichlet_shares(LoadLaw(cv=cv), experts, generator) for _ in range(1500)])
    assert draws.sum(axis=1) == pytest.approx(np.ones(1500))
    square = ((draws * experts - 1) ** 2).mean(axis=1)
    error = float(square.std()) / 1500**0.5
    assert abs(float(square.mean()) - cv**2) < 3 * error


def test_lognormal_shares_have_the_coefficient_of_variation_for_many_experts() -> None:
    """Normalising takes correlation 1 / E out; with 4096 experts and cv = 0.5 that is little."""
    generator = np.random.default_rng(8)
    draws = np.stack([lognormal_shares(LoadLaw(cv=0.5), 4096, generator) for _ in range(100)])
    cv = draws.std(axis=1) * 4096
    assert float(cv.mean()) == pytest.approx(0.5, rel=0.01)
    # the median of a lognormal over its mean is exp(-sigma^2 / 2) = 1 / sqrt(1 + cv^2)
    medians = np.median(draws, axis=1) * 4096
    assert float(medians.mean()) == pytest.approx(1 / 1.25**0.5, rel=0.01)


def test_uniform_top_1_counts_are_binomial() -> None:
    """Mean T / E, variance T / E (1 - 1 / E): 256 tokens on 8 experts, 32 and 28."""
    generator = np.random.default_rng(9)
    counts = np.stack([draw_counts(np.full(8, 1 / 8), 256, 1, generator) for _ in range(4000)])
    assert float(counts.mean()) == 32
    assert float(counts.var()) == pytest.approx(28, rel=3 * (2 / (4000 * 7)) ** 0.5)


def test_uniform_top_2_counts_are_binomial() -> None:
    """A token takes an expert with k / E = 1/4: variance 256 * 1/4 * 3/4 = 48, not 56."""
    generator = np.random.default_rng(9)
    counts = np.stack([draw_counts(np.full(8, 1 / 8), 256, 2, generator) for _ in range(4000)])
    assert float(counts.mean()) == 64
    assert float(counts.var()) == pytest.approx(48, rel=3 * (2 / (4000 * 7)) ** 0.5)


def test_even_counts_differ_by_one_at_most() -> None:
    for tokens, experts, top_k in ((4096, 8, 2), (100, 64, 6), (1, 8, 2), (7, 7, 7)):
        for first in (0, 5, experts, 1000):
            counts = even_counts(tokens, experts, top_k, first)
            assert int(counts.sum()) == tokens * top_k
            assert int(counts.max() - counts.min()) <= 1


def test_imbalance_is_fullest_over_mean() -> None:
    assert imbalance(np.array([1, 2, 3, 6])) == 2.0
    assert imbalance(np.array([5, 5])) == 1.0
    assert imbalance(np.array([0, 0])) == 1.0


def test_experts_lie_on_ranks_in_order() -> None:
    assert rank_rows(np.arange(6), 3).tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(("experts", "top_k"), [(8, 2), (64, 6), (16, 8)])
def test_uniform_counts_overflow_as_in_closed_form(experts: int, top_k: int) -> None:
    """Slots for the mean load: k distinct choices overflow as Binomial(T, k / E) does.

    At the mean the overflow is sqrt((1 - k/E) / (2 pi mu)) for large mu = k T / E, within 3 % and
    three standard errors here.
    """
    generator, tokens = np.random.default_rng(4), 1024
    mean = tokens * top_k // experts
    shares = np.full(experts, 1 / experts)
    counts = np.stack([draw_counts(shares, tokens, top_k, generator) for _ in range(2000)])
    dropped = np.maximum(counts - mean, 0).sum(axis=1) / (tokens * top_k)
    expected = ((1 - top_k / experts) / (2 * np.pi * mean)) ** 0.5
    error = 3 * float(dropped.std()) / 2000**0.5 + 0.03 * expected
    assert abs(float(dropped.mean()) - expected) < error
