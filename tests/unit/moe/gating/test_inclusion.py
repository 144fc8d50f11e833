"""Probability of being among the k best: enumeration, closed forms, draws."""

from itertools import permutations

import numpy as np
import pytest
from scipy import integrate, stats  # type: ignore[import-untyped,unused-ignore]

from moesim.moe.gating.inclusion import first_order, gumbel_normal, normal_cdf, plackett_luce

SHARES = np.array([0.4, 0.25, 0.15, 0.1, 0.07, 0.03])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_plackett_luce_by_enumeration(k: int) -> None:
    """P(order) = prod of s_i over what is left; sum over the orders that hold e."""
    expected = np.zeros(6)
    for order in permutations(range(6), k):
        probability, left = 1.0, 1.0
        for expert in order:
            probability *= SHARES[expert] / left
            left -= SHARES[expert]
        expected[list(order)] += probability
    assert plackett_luce(SHARES, k) == pytest.approx(expected, rel=1e-10)


def test_all_experts_and_equal_shares() -> None:
    assert plackett_luce(SHARES, 6).tolist() == [1.0] * 6
    assert plackett_luce(np.full(256, 1 / 256), 8) == pytest.approx(np.full(256, 1 / 32))
    assert first_order(np.full(256, 1 / 256), 8) == pytest.approx(np.full(256, 1 / 32))


def test_an_expert_without_share_is_never_chosen() -> None:
    shares = np.array([0.5, 0.3, 0.2, 0.0])
    assert plackett_luce(shares, 2)[3] < 1e-12
    assert plackett_luce(shares, 2)[:3].sum() == pytest.approx(2)
    assert first_order(shares, 2)[3] == 0


def test_two_normal_scores_by_hand() -> None:
    """P(a + N > b + N') = Phi((a - b) / (sigma sqrt 2))."""
    found = gumbel_normal(np.array([0.3, -0.2]), 1, gumbel=0.0, normal=0.8)
    assert found[0] == pytest.approx(stats.norm.cdf(0.5 / (0.8 * 2**0.5)), rel=1e-9)


def test_mixed_noise_against_quadrature_of_scipy() -> None:
    """Best of two: P(d > G' - G + sqrt 2 s N), a logistic variable plus a normal one."""
    sigma = 0.5 * 2**0.5
    expected, _ = integrate.quad(
        lambda n: stats.logistic.cdf(0.7 - sigma * n) * stats.norm.pdf(n), -10, 10
    )
    found = gumbel_normal(np.array([0.7, 0.0]), 1, gumbel=1.0, normal=0.5)
    assert found[0] == pytest.approx(expected, abs=1e-5)


def test_mixed_noise_against_draws() -> None:
    generator, draws = np.random.default_rng(6), 100_000
    popularity = np.log(generator.dirichlet(np.ones(32)))
    scores = popularity + generator.gumbel(size=(draws, 32))
    scores += 1.3 * generator.standard_normal(scores.shape)
    chosen = np.argpartition(scores, -4, axis=1)[:, -4:]
    drawn = np.bincount(chosen.ravel(), minlength=32) / draws
    found = gumbel_normal(popularity, 4, normal=1.3)
    assert found.sum() == pytest.approx(4)
    assert (abs(drawn - found) < 4 * (found * (1 - found) / draws) ** 0.5).all()


@pytest.mark.parametrize(
    ("experts", "k", "cv", "within"), [(8, 2, 0.5, 0.05), (64, 6, 0.8, 0.02), (256, 8, 1.3, 0.02)]
)
def test_first_order_comes_close(experts: int, k: int, cv: float, within: float) -> None:
    generator = np.random.default_rng(7)
    shares = np.exp(np.sqrt(np.log1p(cv**2)) * generator.standard_normal((3, experts)))
    found = first_order(shares, k)
    assert found.sum(axis=1) == pytest.approx(np.full(3, float(k)))
    for row, share in zip(found, shares, strict=True):
        assert row == pytest.approx(plackett_luce(share, k), rel=within)


def test_normal_cdf() -> None:
    x = np.array([[-8.0, -1.0, 0.0], [0.5, 2.0, 9.0]])
    assert normal_cdf(x) == pytest.approx(stats.norm.cdf(x), rel=1e-12)


@pytest.mark.parametrize("normal", [4.9, 5.1, 20.0])
def test_both_ways_to_add_two_noises_agree(normal: float) -> None:
    """Summed over the normal or over the Gumbel: against 400,000 draws, three sigma."""
    popularity = np.array([1.0, 0.0, -1.0, -2.0])
    found = gumbel_normal(popularity, 2, normal=normal)
    generator = np.random.default_rng(5)
    scores = (
        popularity
        + generator.gumbel(size=(400_000, 4))
        + normal * generator.normal(size=(400_000, 4))
    )
    ranks = np.argsort(np.argsort(-scores, axis=1), axis=1)
    drawn = (ranks < 2).mean(axis=0)
    assert np.abs(found - drawn).max() < 3 * np.sqrt(0.25 / 400_000)
