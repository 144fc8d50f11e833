"""Dropped shares to expect: Monte Carlo against closed forms, and which router gets which."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from moesim.moe import drops
from moesim.moe.assignment import Router, wanting_tokens
from moesim.moe.capacity import CapacityRule, slots
from moesim.moe.expected_drops import (
    Estimate,
    Expected,
    affordable_draws,
    closed_form,
    draw_groups,
    estimate,
    expected_drops,
    monte_carlo,
)
from moesim.moe.gating.gate import Gate, Level
from moesim.moe.loads import LoadLaw

UNIFORM = LoadLaw(law="uniform")
SKEWED = LoadLaw(law="lognormal", cv=1.0)


def _router(tokens: int, experts: int, top_k: int, factor: float = 1.0, **more: object) -> Router:
    base: dict[str, object] = {
        "law": UNIFORM, "ranks": 8, "capacity": CapacityRule(factor=factor),
    }  # fmt: skip
    return Router(
        tokens=tokens, group_tokens=tokens, experts=experts, top_k=top_k, **{**base, **more},  # type: ignore[arg-type]
    )  # fmt: skip


def _drawn(router: Router, draws: int, seed: int = 12345) -> Estimate:
    tokens = wanting_tokens(router, router.group_tokens)
    counts = draw_groups(router, tokens, draws, np.random.default_rng(seed))
    return monte_carlo(router, (counts, np.random.default_rng(seed + 1)))


SIZES = [  # tokens, experts, k, capacity factor: rows of the computed table
    (1024, 8, 1, 1.0), (1024, 64, 1, 1.25), (4096, 128, 1, 1.0), (16384, 256, 1, 1.0),
    (65536, 2048, 1, 1.0),
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_uniform_routing_within_three_standard_errors(size: tuple[int, int, int, float]) -> None:
    router, limit = _router(*size), int(np.ceil(size[0] * size[3] / size[1]))
    found = _drawn(router, 1000)
    expected = drops.uniform(size[0], size[1], 1, limit)
    assert found.draws == 1000
    assert 0 < found.standard_error < 0.05 * max(expected, 2e-3)
    assert abs(found.mean - expected) < 3 * found.standard_error
    assert closed_form(router) == expected


@pytest.mark.parametrize("rule", ["softmax_topk", "deepseek_v3", "hierarchical", "gshard_top2"])
def test_uniform_choices_of_any_rule_have_the_law_of_single_choices(rule: str) -> None:
    """A token includes each expert with probability k/E, apart from all other tokens."""
    gate = Gate(experts=16, top_k=2, groups=4, groups_per_token=2)
    if rule == "hierarchical":
        gate = replace(gate, levels=(Level(fanout=4, limit=2), Level(fanout=4, limit=1)))
    router = _router(256, 16, 2, rule=rule, gate=gate)
    found = _drawn(router, 600)
    expected = closed_form(router)
    assert expected == drops.uniform(256, 16, 2, 32)
    assert abs(found.mean - expected) < 3 * found.standard_error


@pytest.mark.parametrize("concentration", [0.5, 5.0, 100.0])
def test_dirichlet_routing_within_three_standard_errors(concentration: float) -> None:
    law = LoadLaw(law="dirichlet", cv=drops.dirichlet_cv(64, concentration))
    router = _router(65_536, 64, 1, 1.25, law=law)
    found = _drawn(router, 2000, seed=3)
    expected = drops.dirichlet(65_536, 64, 1, 1280, concentration)
    assert abs(found.mean - expected) < 3 * found.standard_error
    assert closed_form(router) == pytest.approx(expected, rel=1e-9)


def test_lognormal_routing_against_the_tails_of_each_draw() -> None:
    """Mean over shares of the binomial tails of each expert, summed without draws of tokens."""
    found = _drawn(_router(512, 32, 1, 1.25, law=LoadLaw(law="lognormal", cv=0.8)), 4000)
    generator, exact = np.random.default_rng(2), []
    n = np.arange(513)[:, None]
    for _ in range(400):
        shares = np.exp(np.sqrt(np.log(1 + 0.8**2)) * generator.standard_normal(32))
        tails = stats.binom.pmf(n, 512, shares / shares.sum()) * np.maximum(n - 20, 0)
        exact.append(tails.sum() / 512)
    other = estimate(np.array(exact))
    error = (found.standard_error**2 + other.standard_error**2) ** 0.5
    assert abs(found.mean - other.mean) < 3 * error


def test_measured_shares_have_a_closed_form() -> None:
    """Loads are Binomial(T, p_e): the tails of each expert by scipy."""
    shares = (0.4, 0.3, 0.2, 0.1)
    router = _router(60, 4, 1, law=LoadLaw(law="trace"), shares=shares, ranks=4)
    n = np.arange(61)[:, None]
    tails = stats.binom.pmf(n, 60, np.array(shares)) * np.maximum(n - 15, 0)
    assert closed_form(router) == pytest.approx(tails.sum() / 60, abs=1e-12)
    # two distinct choices: twice the shares, (60 * 2) / 4 slots
    two = replace(router, top_k=2)
    tails = stats.binom.pmf(n, 60, 2 * np.array(shares)) * np.maximum(n - 30, 0)
    assert closed_form(two) == pytest.approx(tails.sum() / 120, abs=1e-12)


def test_device_budget_within_three_standard_errors() -> None:
    rule = CapacityRule(formula="deepseek_v2")
    router = _router(2048, 64, 1, capacity=rule)
    found = _drawn(router, 2000, seed=4)
    expected = drops.device_uniform(2048, 64, 1, devices=8, budget=256)
    assert closed_form(router) == expected
    assert abs(found.mean - expected) < 3 * found.standard_error


def test_even_routing_has_no_scatter() -> None:
    router = _router(100, 8, 1, law=LoadLaw(), capacity=CapacityRule(mode="absolute", absolute=12))
    assert closed_form(router) == 0.04  # 13 13 13 13 12 12 12 12
    # 25 rows of each of four ranks, 20 of them within the budget, or 22.5 of them spared
    shared = CapacityRule(formula="deepseek_v2", factor=0.8)
    assert closed_form(replace(router, ranks=4, capacity=shared)) == pytest.approx(0.2)
    spared = replace(shared, spared_fraction=0.9)
    assert closed_form(replace(router, ranks=4, capacity=spared)) == pytest.approx(2 / 25)


def test_padding_that_wants_no_slot_leaves_room() -> None:
    """A fifth of 1000 tokens is padding: 800 compete for the slots of 1000 (switch, k = 1)."""
    rule = CapacityRule(formula="switch", padding_fraction=0.2)
    router = _router(1000, 8, 1, capacity=rule)
    assert closed_form(router) == drops.uniform(800, 8, 1, 125)
    routed = replace(router, capacity=replace(rule, padding_tokens_occupy_capacity=True))
    assert closed_form(routed) == drops.uniform(1000, 8, 1, 125)


def _expected(router: Router) -> Expected | None:
    def drawn() -> tuple[np.ndarray, np.random.Generator]:
        tokens = wanting_tokens(router, router.group_tokens)
        draws = affordable_draws(router)
        generator = np.random.default_rng(0)
        return draw_groups(router, tokens, draws, generator), generator

    return expected_drops(router, drawn)


def test_what_has_no_closed_form_is_drawn_and_says_so() -> None:
    gate = Gate(experts=16, top_k=2, second_policy="random_gshard")
    for router in (
        _router(256, 16, 2, law=SKEWED),
        _router(256, 16, 2, law=SKEWED, rule="softmax_topk", gate=gate),
        _router(256, 16, 2, rule="gshard_top2", gate=gate),
        _router(256, 16, 2, phi=2.0),
        _router(256, 16, 2, law=SKEWED, capacity=CapacityRule(formula="deepseek_v2")),
        _router(256, 16, 2, capacity=CapacityRule(formula="deepseek_v2", spared_fraction=0.1)),
    ):
        assert closed_form(router) is None
        found = _expected(router)
        assert found is not None
        assert found.kind == "monte carlo"
        assert 0 < found.standard_error < found.fraction < 1


def test_without_a_capacity_nothing_is_dropped() -> None:
    found = _expected(_router(256, 16, 2, law=SKEWED, capacity=None))
    assert found == Expected(fraction=0.0, kind="closed form")


def test_groups_too_large_to_be_routed_one_by_one_often_have_no_expectation() -> None:
    gate = Gate(experts=256, top_k=8, groups=8, groups_per_token=4)
    router = _router(10**6, 256, 8, law=SKEWED, rule="deepseek_v3", gate=gate)
    assert _expected(router) is None
    assert slots(CapacityRule(), 10**6, 256, 8) == 31_250
