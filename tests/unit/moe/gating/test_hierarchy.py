"""Two levels: mesh-tensorflow's second layer, MoEs inside experts, and what they multiply."""

import numpy as np
import pytest

from moesim.moe.choices import assignments_per_token, counts, parts_reached
from moesim.moe.gating.expected import expected_load
from moesim.moe.gating.gate import Gate, Level, SecondPolicy
from moesim.moe.gating.nested import nested, nested_size
from moesim.moe.gating.table import choose
from tests.unit.moe.gating.reference import Array, as_tokens

TOKENS = 30_000


def _shares(experts: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).dirichlet(np.full(experts, 1.0))


def _mtf(policy: SecondPolicy, threshold: float = 0.2) -> Gate:
    return Gate(
        experts=32, top_k=3, second_policy=policy, threshold=threshold,
        levels=(Level(fanout=4, limit=2, link="scale_out"), Level(fanout=8, limit=2)),
    )  # fmt: skip


def test_mtf_v2_uses_up_to_two_experts_of_the_first_group_and_one_of_the_second() -> None:
    found = choose(
        "mtf_v2", _mtf("random_mtf"), _shares(32), TOKENS, generator=np.random.default_rng(1)
    )
    used = assignments_per_token(found)
    assert used.min() == 1  # capacity alone makes it zero
    assert used.max() == 3
    assert parts_reached(found, 32, 4).max() == 2
    for token in as_tokens(found.experts, found.weights)[:2000]:
        members = [expert // 8 for expert in token]
        crowded = [group for group in set(members) if members.count(group) == 2]
        assert len(crowded) <= 1
        if len(token) == 3:  # the crowded group is the first: it weighs 1/2 or more in all
            assert sum(w for e, w in token.items() if e // 8 in crowded) >= 0.5


@pytest.mark.parametrize("policy", ["all", "none", "threshold", "random_gshard", "random_mtf"])
def test_mtf_v2_against_its_expectation(policy: SecondPolicy) -> None:
    gate, shares = _mtf(policy), _shares(32, 2)
    found = choose("mtf_v2", gate, shares, TOKENS, generator=np.random.default_rng(3))
    load = expected_load("mtf_v2", gate, shares)
    drawn = counts(found, 32, 1)[0] / TOKENS
    assert (abs(drawn - load) <= 4 * (load * (1 - load) / TOKENS) ** 0.5).all()
    fixed = {"all": 3.0, "none": 1.0}.get(policy)
    if fixed is not None:
        assert load.sum() == pytest.approx(fixed)
        assert (assignments_per_token(found) == fixed).all()


def test_mtf_v2_by_hand_for_two_equal_groups_of_two() -> None:
    """With one of two chosen g2 > 1/4 where r = X1 / (X1 + 2 B) > 1/3, X1 and B exponential.

    P(r < x) = 2x / (1 + x), so P(r > 1/3) = 1/2: a token uses 1 + 1/2 groups, two experts of the
    first with probability 1/2: 1 + 1/2 + 1/2 = 2 experts in the mean, 1/2 for each of the four.
    """
    gate = Gate(
        experts=4, top_k=3, second_policy="threshold", threshold=0.25,
        levels=(Level(fanout=2, limit=2), Level(fanout=2, limit=2)),
    )  # fmt: skip
    assert expected_load("mtf_v2", gate, np.full(4, 0.25)) == pytest.approx([0.5] * 4)
    found = choose("mtf_v2", gate, np.full(4, 0.25), TOKENS, generator=np.random.default_rng(4))
    # 1, 2 or 3 experts with probability 1/4, 1/2, 1/4
    numbers = np.bincount(assignments_per_token(found), minlength=4)[1:] / TOKENS
    assert numbers == pytest.approx([0.25, 0.5, 0.25], abs=4 * (0.25 / TOKENS) ** 0.5)


def test_hierarchical_against_its_expectation() -> None:
    shares = _shares(24, 5)
    levels = (Level(fanout=3, limit=2), Level(fanout=2, limit=1), Level(fanout=4, limit=3))
    gate = Gate(experts=24, top_k=6, levels=levels)
    found = choose("hierarchical", gate, shares, TOKENS, generator=np.random.default_rng(6))
    assert (parts_reached(found, 24, 3) == 2).all()
    assert (parts_reached(found, 24, 6) == 2).all()
    assert (assignments_per_token(found) == 6).all()
    assert found.weights.sum(axis=1) == pytest.approx(np.ones(TOKENS))
    load = expected_load("hierarchical", gate, shares)
    assert load.sum() == pytest.approx(6)
    drawn = counts(found, 24, 1)[0] / TOKENS
    assert (abs(drawn - load) < 4 * (load * (1 - load) / TOKENS) ** 0.5 + 1e-12).all()


def test_nested_softmax_routers_are_a_hierarchy() -> None:
    """Two levels of top-k inside top-k: the same law of loads as `hierarchical`."""
    shares = _shares(24, 7)
    levels = (Level(fanout=4, limit=2), Level(fanout=6, limit=2))
    gate = Gate(experts=24, top_k=4, levels=levels)
    found = nested(gate, shares, TOKENS, np.random.default_rng(8))
    load = expected_load("hierarchical", gate, shares)
    assert expected_load("nested", gate, shares) == pytest.approx(load)
    drawn = counts(found, 24, 1)[0] / TOKENS
    assert (abs(drawn - load) < 4 * (load * (1 - load) / TOKENS) ** 0.5).all()
    assert found.weights.sum(axis=1) == pytest.approx(np.ones(TOKENS))
    assert (parts_reached(found, 24, 4) == 2).all()


def test_inner_moes_balance_their_own_tokens() -> None:
    """Top-2 of 3 by popularity, inside each of them BASE over 4, inside these top-1 of 2."""
    levels = (
        Level(fanout=3, limit=2), Level(fanout=4, limit=1, rule="base"), Level(fanout=2, limit=1),
    )  # fmt: skip
    gate = Gate(experts=24, top_k=2, levels=levels)
    found = choose("nested", gate, _shares(24, 9), 2000, generator=np.random.default_rng(10))
    tokens = as_tokens(found.experts, found.weights)
    assert all(len({expert // 8 for expert in token}) == len(token) == 2 for token in tokens)
    inner = counts(found, 24, 1)[0].reshape(3, 4, 2).sum(axis=2)
    assert int(inner.sum()) == 4000
    assert (inner.max(axis=1) - inner.min(axis=1) <= 1).all()
    assert len(set(inner.sum(axis=1).tolist())) > 1
    load = expected_load("nested", gate, _shares(24, 9)).reshape(3, 4, 2).sum(axis=2)
    assert load.sum() == pytest.approx(2)
    assert np.ptp(load, axis=1) == pytest.approx(np.zeros(3))


def test_noise_reaches_the_levels_that_read_it() -> None:
    """Noise without bound forgets popularity: 1/2 for each of two parts."""
    levels = (Level(fanout=2, limit=1, rule="noisy_topk"), Level(fanout=2, limit=1))
    gate = Gate(experts=4, top_k=1, levels=levels, noise=1e4)
    load = expected_load("nested", gate, np.array([0.6, 0.2, 0.1, 0.1]))
    assert load == pytest.approx([0.375, 0.125, 0.25, 0.25], abs=1e-3)


def test_nesting_multiplies_parameters_not_work() -> None:
    """Top-2 of 8, each an MoE of 4 with top-1: 32 leaves held, 2 run, as with plain experts.

    Routers: 8 + 8 * 4 = 40 weights per unit of width; scores 8 + 2 * 4 = 16. A flat router over
    the leaves would have 32 of each.
    """
    plain, stacked = nested_size((_top(8, 2),)), nested_size((_top(8, 2), _top(4, 1)))
    assert (plain.stored, plain.active) == (8, 2)
    assert (stacked.stored, stacked.active) == (32, 2)
    assert (stacked.router_params, stacked.router_scores) == (40, 16)
    assert (plain.router_params, plain.router_scores) == (8, 8)


def test_three_levels_by_hand() -> None:
    # 2 + 2*3 + 2*3*5 weights; 2 + 1*3 + 1*2*5 scores
    size = nested_size((_top(2, 1), _top(3, 2), _top(5, 4)))
    assert (size.stored, size.active) == (30, 8)
    assert (size.router_params, size.router_scores) == (38, 15)


def _top(experts: int, k: int) -> Level:
    return Level(fanout=experts, limit=k)
