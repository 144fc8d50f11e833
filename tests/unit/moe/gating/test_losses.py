"""Loss formulas by hand and against direct computation."""

import numpy as np
import pytest
from scipy import special, stats  # type: ignore[import-untyped,unused-ignore]

from moesim.moe.choices import Choices
from moesim.moe.gating import losses
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.inclusion import gumbel_normal
from moesim.moe.gating.scores import softmax
from moesim.moe.gating.table import choose


def test_importance_by_hand() -> None:
    choices = Choices(
        np.array([[0, 2], [2, -1], [1, 2]]), np.array([[0.7, 0.3], [1.0, 0.0], [0.6, 0.4]])
    )
    assert losses.importance(choices, 4) == pytest.approx([0.7, 0.6, 1.7, 0.0])


def test_load_probability_expert_by_expert() -> None:
    """Phi((clean_i - k-th largest noisy of the others) / noise), as Shazeer writes it."""
    generator = np.random.default_rng(1)
    clean = generator.standard_normal((20, 6))
    noise = np.log1p(np.exp(generator.standard_normal((20, 6))))  # softplus
    noisy = clean + noise * generator.standard_normal((20, 6))
    for k in (1, 2, 5):
        found = losses.load_probability(clean, noisy, noise, k)
        for token in range(20):
            for i in range(6):
                others = sorted(np.delete(noisy[token], i), reverse=True)
                z = (clean[token, i] - others[k - 1]) / noise[token, i]
                assert found[token, i] == pytest.approx(stats.norm.cdf(z), rel=1e-9)
        assert losses.load(clean, noisy, noise, k) == pytest.approx(found.sum(axis=0))
    assert (losses.load_probability(clean, noisy, noise, 6) == 1).all()


def test_load_estimates_the_count_of_noisy_topk() -> None:
    """E[Load_i] = T P(i among the k best): the estimator is unbiased over the noise."""
    generator, tokens = np.random.default_rng(2), 40_000
    shares = np.array([0.4, 0.2, 0.2, 0.1, 0.1])
    clean = np.log(shares) + generator.gumbel(size=(tokens, 5))
    noisy = clean + 0.8 * generator.standard_normal(clean.shape)
    estimate = losses.load_probability(clean, noisy, 0.8, 2)
    expected = gumbel_normal(np.log(shares), 2, normal=0.8)
    error = 4 * estimate.std(axis=0) / tokens**0.5
    assert (abs(estimate.mean(axis=0) - expected) < error).all()


def test_the_first_step_of_training_is_balanced() -> None:
    """Zero matrices: logits 0 and noise softplus(0) = ln 2, so loads differ by chance alone."""
    gate = Gate(experts=16, top_k=4, sharpness=0.0, noise=float(np.log(2)))
    skewed = np.random.default_rng(3).dirichlet(np.full(16, 0.3))
    found = choose("noisy_topk", gate, skewed, 20_000, generator=np.random.default_rng(4))
    load = np.bincount(found.experts.ravel(), minlength=16)
    assert (abs(load - 5000) < 4 * (5000 * 0.75) ** 0.5).all()
    assert losses.cv_squared(losses.importance(found, 16)) < 1e-3


def test_cv_squared_by_hand() -> None:
    # mean 2, variance 1
    assert losses.cv_squared(np.array([1.0, 3.0])) == pytest.approx(0.25)
    assert losses.cv_squared(np.full(8, 3.0)) == 0.0
    assert losses.cv_squared(np.zeros(8)) == 0.0


def test_hierarchical_load_by_hand() -> None:
    # groups get 6 and 2 tokens, whose loads inside are halved by the sizes of their batches
    found = losses.hierarchical_load(
        np.array([5.0, 3.0]), np.array([[4.0, 2.0], [1.0, 1.0]]), np.array([6.0, 2.0])
    )
    assert found == pytest.approx(np.array([[10 / 3, 5 / 3], [1.5, 1.5]]))


def test_switch_loss_by_hand() -> None:
    # N sum f P: 1 when even, N when one expert gets all
    assert losses.balance(np.full(4, 0.25), np.full(4, 0.25)) == pytest.approx(1.0)
    assert losses.balance(np.array([1.0, 0, 0, 0]), np.array([1.0, 0, 0, 0])) == 4.0
    assert losses.balance(np.array([0.5, 0.5, 0, 0]), np.array([0.4, 0.4, 0.1, 0.1])) == 1.6


def test_gshard_loss_is_the_switch_loss_over_the_square_of_the_experts() -> None:
    # (1 / E) sum (c_e / S) m_e
    first, mean = np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.3, 0.1])
    assert losses.gshard(first, mean) == pytest.approx((0.3 + 0.09 + 0.02) / 3)
    assert losses.gshard(first, mean) == pytest.approx(losses.balance(first, mean) / 9)


def test_z_loss() -> None:
    values = np.random.default_rng(5).standard_normal((50, 8)) * 30
    expected = float((special.logsumexp(values, axis=1) ** 2).mean())
    assert losses.router_z(values) == pytest.approx(expected)
    # logits 0: ln(E)^2
    assert losses.router_z(np.zeros((3, 8))) == pytest.approx(np.log(8) ** 2)
    assert losses.router_z(np.full((1, 2), 1000.0)) == pytest.approx((1000 + np.log(2)) ** 2)


def test_softmax_does_not_overflow() -> None:
    assert softmax(np.array([1000.0, 1000.0])) == pytest.approx([0.5, 0.5])
