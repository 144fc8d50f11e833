"""Traffic of several domains: clustered draws, correlation between domains, and switching."""

import numpy as np
import pytest

from moesim.moe.counts import Batch, layer_streams
from moesim.moe.domains import (
    Drift,
    Mixture,
    domain_shares,
    domain_steps,
    draw_split,
    mixed,
    split,
)
from moesim.moe.loads import cv_of

_TWO = np.array([[[1.0, 0.0, 0.0, 0.0]], [[0.0, 0.5, 0.25, 0.25]]])


def test_the_mix_is_the_weighted_mean() -> None:
    mixture = Mixture(shares=_TWO, weights=(3.0, 1.0))
    assert mixed(mixture) == pytest.approx(np.array([[0.75, 0.125, 0.0625, 0.0625]]))


def test_sequences_are_of_one_domain() -> None:
    """Weight 1/4, 10 sequences of 32 tokens: variance 32^2 * 10 * 3/16 = 1920, within 4 sigma."""
    mixture = Mixture(shares=_TWO, weights=(3.0, 1.0), sequence_tokens=32)
    generator = np.random.default_rng(1)
    found = np.stack([split(mixture, 320, generator) for _ in range(4000)])
    assert (found.sum(axis=1) == 320).all()
    assert (found % 32 == 0).all()
    assert float(found[:, 1].mean()) == pytest.approx(80, abs=4 * (1920 / 4000) ** 0.5)
    assert float(found[:, 1].var()) == pytest.approx(1920, rel=4 * (2 / 4000) ** 0.5)
    # what is left of the batch is one more, shorter sequence
    assert sorted(split(mixture, 20, generator).tolist()) == [0, 20]


def test_tokens_of_many_requests_scatter_as_independent_tokens_of_the_mix() -> None:
    """Sequences of one token: variance n q (1 - q), q the mixed share; within 4 sigma."""
    mixture, generator = Mixture(shares=_TWO, weights=(1.0, 1.0)), np.random.default_rng(2)
    batch = Batch(tokens=60, top_k=1)
    counts = np.stack(
        [
            draw_split(mixture, batch, split(mixture, 60, generator), [[generator]] * 2)[0]
            for _ in range(4000)
        ]
    )
    q = np.array([0.5, 0.25, 0.125, 0.125])
    error = np.sqrt(60 * q * (1 - q) / 4000)
    assert float(np.abs((counts.mean(axis=0) - 60 * q) / error).max()) < 4
    assert counts.var(axis=0) == pytest.approx(60 * q * (1 - q), rel=4 * (2 / 4000) ** 0.5 + 0.02)


def test_all_layers_see_the_same_composition() -> None:
    shares = np.repeat(_TWO, 3, axis=1)
    mixture = Mixture(shares=shares, weights=(1.0, 1.0))
    streams = [layer_streams(0, domain, range(3)) for domain in ("chat", "code")]
    tokens = split(mixture, 99, np.random.default_rng(5))
    counts = draw_split(mixture, Batch(tokens=99, top_k=1), tokens, streams)
    assert len(set(counts[:, 0].tolist())) == 1
    assert counts.sum(axis=1).tolist() == [99, 99, 99]


@pytest.mark.parametrize("correlation", [0.0, 0.04, 0.23, 0.9])
def test_domains_correlate_as_asked(correlation: float) -> None:
    """Correlation of two domains' shares over 40,000 experts, sigma 0.8; within 0.03."""
    shares = domain_shares(
        [cv_of(0.8)] * 3,
        40_000,
        layer_streams(3, "x", range(2)),
        correlation=correlation,
    )
    assert shares.shape == (3, 2, 40_000)
    assert shares.sum(axis=2) == pytest.approx(np.ones((3, 2)))
    found = np.asarray(np.corrcoef(shares[:, 0]))[np.triu_indices(3, 1)]
    assert found == pytest.approx(np.full(3, correlation), abs=0.03)


def test_a_mix_of_domains_is_flatter_by_the_closed_form() -> None:
    """CV^2 of D equal parts with CV c and correlation r: c^2 (1/D + (1 - 1/D) r).

    c = 0.83 and the middle of r = 0.04..0.23 give 0.49 for four; real tasks mix to 0.511.
    """
    streams = layer_streams(4, "x", range(4))
    shares = domain_shares([0.83] * 4, 20_000, streams, correlation=0.13)
    mix = mixed(Mixture(shares=shares, weights=(1.0,) * 4))
    cv = float((mix.std(axis=1) / mix.mean(axis=1)).mean())
    assert cv == pytest.approx(0.83 * (0.25 + 0.75 * 0.13) ** 0.5, rel=0.03)
    assert cv == pytest.approx(0.511, rel=0.06)


def test_domains_stay_and_switch_as_a_markov_chain() -> None:
    """Long-run shares 1/2, 1/3, 1/6; a step keeps domain d with stay + (1 - stay) w_d."""
    drift = Drift(weights=(3, 2, 1), stay=0.95)
    steps = domain_steps(drift, 400_000, np.random.default_rng(6))
    weights = np.array([3, 2, 1]) / 6
    # the sum of a correlated chain has (1 + r) / (1 - r) = 39 times the variance, r = stay
    error = np.sqrt(39 * weights * (1 - weights) / 400_000)
    assert float(np.abs((np.bincount(steps) / 400_000 - weights) / error).max()) < 4
    for domain, weight in enumerate(weights):
        here = steps[:-1] == domain
        kept = float((steps[1:][here] == domain).mean())
        expected = 0.95 + 0.05 * weight
        assert abs(kept - expected) < 4 * (expected * (1 - expected) / here.sum()) ** 0.5


def test_a_chain_that_always_stays_or_never_and_a_short_one() -> None:
    generator = np.random.default_rng(7)
    assert len(set(domain_steps(Drift(weights=(1, 1), stay=1.0), 50, generator).tolist())) == 1
    fresh = domain_steps(Drift(weights=(1, 1), stay=0.0), 4000, generator)
    assert abs(float((fresh[1:] == fresh[:-1]).mean()) - 0.5) < 4 * 0.5 / 4000**0.5
    assert domain_steps(Drift(weights=(1,), stay=0.5), 0, generator).tolist() == []


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (-1.0, 2.0), (float("nan"), 1.0)])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="weights of domains"):
        domain_steps(Drift(weights=weights, stay=0.5), 3, np.random.default_rng(0))
