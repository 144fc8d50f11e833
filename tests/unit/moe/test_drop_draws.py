"""Monte Carlo of drops against closed forms and against tokens routed one by one."""

import numpy as np
import pytest

from moesim.moe import drops
from moesim.moe.drop_draws import (
    Routing,
    device_drop_estimate,
    draw_choices,
    draw_loads,
    drop_estimate,
    estimate,
    inclusion,
)
from moesim.moe.loads import LoadLaw, draw_shares

UNIFORM = [  # tokens, experts, k, capacity factor: rows of the computed table
    (1024, 8, 1, 1.0), (1024, 64, 1, 1.25), (4096, 128, 1, 1.0), (16384, 256, 1, 1.0),
    (65536, 2048, 1, 1.0), (1024, 8, 2, 1.0), (1024, 64, 6, 1.0), (4096, 64, 8, 1.0),
    (1024, 128, 8, 1.25),
]  # fmt: skip


@pytest.mark.parametrize("size", UNIFORM)
def test_uniform_routing_within_three_standard_errors(size: tuple[int, int, int, float]) -> None:
    tokens, experts, k, factor = size
    capacity = int(np.ceil(k * tokens * factor / experts))
    routing = Routing(tokens=tokens, experts=experts, top_k=k, law=LoadLaw(law="uniform"))
    found = drop_estimate(routing, capacity, 2000, np.random.default_rng(12345))
    expected = drops.uniform(tokens, experts, k, capacity)
    assert found.draws == 2000
    assert 0 < found.standard_error < 0.05 * max(expected, 1e-3)
    assert abs(found.mean - expected) < 3 * found.standard_error


@pytest.mark.parametrize("concentration", [0.5, 1.0, 5.0, 100.0])
@pytest.mark.parametrize("factor", [1.0, 1.25])
def test_dirichlet_routing_within_three_standard_errors(
    concentration: float, factor: float
) -> None:
    cv = drops.dirichlet_cv(64, concentration)
    routing = Routing(tokens=65_536, experts=64, top_k=1, law=LoadLaw(law="dirichlet", cv=cv))
    capacity = int(1024 * factor)
    found = drop_estimate(routing, capacity, 2000, np.random.default_rng(3))
    expected = drops.dirichlet(65_536, 64, 1, capacity, concentration)
    assert abs(found.mean - expected) < 3 * found.standard_error


@pytest.mark.parametrize("k", [1, 4])
def test_lognormal_routing_against_the_tails_of_each_draw(k: int) -> None:
    """Mean over shares of the binomial tails of each expert, summed without draws of tokens."""
    routing = Routing(tokens=512, experts=32, top_k=k, law=LoadLaw(law="lognormal", cv=0.8))
    capacity = 20 * k
    found = drop_estimate(routing, capacity, 4000, np.random.default_rng(1))
    generator, exact = np.random.default_rng(2), []
    for _ in range(150):
        shares = np.minimum(1.0, k * draw_shares(routing.law, 32, generator))
        lost = [_binomial_overflow(512, float(share), capacity) for share in shares]
        exact.append(sum(lost) / (512 * k))
    other = estimate(np.array(exact))
    error = (found.standard_error**2 + other.standard_error**2) ** 0.5
    assert abs(found.mean - other.mean) < 3 * error


def _binomial_overflow(tokens: int, share: float, capacity: int) -> float:
    n = np.arange(tokens + 1)
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, tokens + 1)))))
    choose = logs[-1] - logs - logs[::-1]
    share = min(share, 1 - 1e-12)
    p = np.exp(choose + n * np.log(share) + (tokens - n) * np.log1p(-share))
    return float(np.maximum(n - capacity, 0) @ p)


def test_uniform_loads_are_those_of_distinct_choices() -> None:
    """Sums are exact; means and spread are those of k of E: sd^2 = T k/E (1 - k/E)."""
    routing = Routing(tokens=200, experts=6, top_k=4, law=LoadLaw(law="uniform"))
    loads = draw_loads(routing, 5000, np.random.default_rng(0))
    assert np.all(loads.sum(axis=1) == 800)
    assert loads.max() <= 200
    np.testing.assert_allclose(loads.mean(axis=0), 800 / 6, rtol=0.005)
    np.testing.assert_allclose(loads.var(axis=0), 200 * 4 / 6 * 2 / 6, rtol=0.08)
    # two experts: cov = -var / (E - 1)
    np.testing.assert_allclose(np.cov(loads[:, 0], loads[:, 5])[0, 1], -44.44 / 5, rtol=0.3)


def test_even_routing_has_no_scatter() -> None:
    routing = Routing(tokens=100, experts=8, top_k=1, law=LoadLaw())
    found = drop_estimate(routing, 12, 50, np.random.default_rng(0))
    assert (found.mean, found.standard_error) == (0.04, 0.0)  # 13 13 13 13 12 12 12 12


def test_device_budget_within_three_standard_errors() -> None:
    routing = Routing(tokens=4096, experts=64, top_k=6, law=LoadLaw(law="uniform"))
    found = device_drop_estimate(routing, 2000, np.random.default_rng(4), devices=8, budget=3072)
    expected = drops.device_uniform(4096, 64, 6, devices=8, budget=3072)
    assert abs(found.mean - expected) < 3 * found.standard_error
    assert expected < drops.uniform(4096, 64, 6, 384)  # sharing slots drops less


def test_no_expert_is_wanted_more_than_once_per_token() -> None:
    shares = np.array([[0.7, 0.2, 0.05, 0.05], [0.25, 0.25, 0.25, 0.25], [0.5, 0.49, 0.005, 0.005]])
    found = inclusion(shares, 2)
    np.testing.assert_allclose(found.sum(axis=1), 2)
    # 0.7 is worth more than one: the second choice goes to the rest by 0.2 : 0.05 : 0.05
    np.testing.assert_allclose(found[0], [1, 2 / 3, 1 / 6, 1 / 6])
    np.testing.assert_allclose(found[1], 0.5)
    np.testing.assert_allclose(found[2], [1, 0.98, 0.01, 0.01])


def test_first_choices_follow_the_shares_and_choices_are_distinct() -> None:
    shares = np.array([0.5, 0.3, 0.15, 0.05])
    choices = draw_choices(shares, 20_000, 3, np.random.default_rng(0))
    first = np.bincount(choices.experts[:, 0], minlength=4) / 20_000
    assert np.all(np.abs(first - shares) < 4 * np.sqrt(shares * (1 - shares) / 20_000))
    # second choice after the first expert: 0.3 : 0.15 : 0.05
    after = choices.experts[choices.experts[:, 0] == 0, 1]
    assert np.mean(after == 1) == pytest.approx(0.6, abs=0.02)
    assert all(len(set(row)) == 3 for row in choices.experts[:200].tolist())
    np.testing.assert_allclose(choices.weights.sum(axis=1), 1)
    assert np.all(np.diff(choices.weights, axis=1) <= 0)
