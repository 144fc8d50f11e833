"""Laws refuse what lies far beyond the runs they were fitted to, unless they are told not to."""

import pytest

from moesim.errors import ModelError
from moesim.study.quality.compute_optimal import dense_compute_ratio, dense_optimum, moe_optimum
from moesim.study.quality.scaling_laws import (
    CLARK2022,
    KRAJEWSKI2024,
    clark2022,
    clark2022_cutoff_params,
    clark2022_dense,
    clark2022_multiplier,
    krajewski2024,
    krajewski2024_dense,
)
from moesim.study.quality.validity_range import outside


def test_what_is_outside_is_named() -> None:
    assert outside(CLARK2022, active_params=1e9, experts=64) == ()
    (problem,) = outside(CLARK2022, active_params=2e9, experts=64)
    assert problem == "active_params 2e+09 is outside 1.5e+07 to 1.3e+09"
    assert outside(CLARK2022, 3.0, active_params=2e9, experts=64) == ()


@pytest.mark.parametrize(
    ("active", "experts", "tokens"),
    [(4e9, 64, 130e9), (4e6, 64, 130e9), (1e9, 1537, 130e9), (1e9, 64, 400e9), (1e9, 64, 40e9)],
)
def test_clark2022_beyond_three_times_its_range(active: float, experts: int, tokens: float) -> None:
    for law in (clark2022, clark2022_multiplier):
        with pytest.raises(ModelError, match="Ask for extrapolation"):
            law(active, experts, tokens=tokens)
        assert law(active, experts, tokens=tokens, extrapolate=True) > 0


def test_up_to_three_times_the_range_is_used() -> None:
    assert clark2022(3.9e9, 1536) < clark2022(1.3e9, 512)
    assert clark2022_dense(3.9e9) < clark2022_dense(1.3e9)
    assert krajewski2024(11e9, 390e9, 48) < krajewski2024(3.7e9, 130e9, 16)


@pytest.mark.parametrize(
    ("total", "tokens", "granularity"), [(12e9, 100e9, 4), (1e9, 400e9, 4), (1e9, 100e9, 49)]
)
def test_krajewski2024_beyond_three_times_its_range(
    total: float, tokens: float, granularity: float
) -> None:
    with pytest.raises(ModelError, match="krajewski2024 was fitted elsewhere"):
        krajewski2024(total, tokens, granularity)
    assert krajewski2024(total, tokens, granularity, extrapolate=True) > KRAJEWSKI2024_FLOOR


KRAJEWSKI2024_FLOOR = 0.47


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_no_number_is_no_extrapolation(value: float) -> None:
    with pytest.raises(ModelError, match="positive and finite"):
        clark2022(value, 8, extrapolate=True)
    with pytest.raises(ModelError, match="positive and finite"):
        krajewski2024_dense(1e9, value, extrapolate=True)


def test_routers_are_known_by_name() -> None:
    with pytest.raises(ModelError, match="Did you mean 's_base'"):
        clark2022(1e9, 8, "sbase")
    with pytest.raises(ModelError, match="knows s_base, rl_r, hash"):
        clark2022_cutoff_params("top1")


def test_more_experts_parameters_tokens_and_finer_experts_lower_the_loss() -> None:
    experts = [clark2022(1e8, e) for e in (1, 2, 8, 64, 512)]
    assert experts == sorted(experts, reverse=True)
    sizes = [clark2022(n, 64) for n in (15e6, 1e8, 1e9)]
    assert sizes == sorted(sizes, reverse=True)
    for losses in (
        [krajewski2024(n, 1e11, 4) for n in (1e8, 1e9, 1e10)],
        [krajewski2024(1e9, d, 4) for d in (1e10, 1e11, 3e11)],
        [krajewski2024(1e9, 1e11, g) for g in (1, 2, 8, 32)],
    ):
        assert losses == sorted(losses, reverse=True)


def test_one_expert_is_a_dense_network() -> None:
    for size in (15e6, 1e9):
        assert clark2022_multiplier(size, 1) == pytest.approx(1.0)


def test_the_multiplier_is_what_makes_losses_equal() -> None:
    for router in ("s_base", "rl_r", "hash"):
        larger = 1e8 * clark2022_multiplier(1e8, 32, router)
        expected = clark2022(1e8, 32, router)
        assert clark2022(larger, 1, router) == pytest.approx(expected, rel=1e-12)


def test_optima_are_the_best_of_their_neighbours() -> None:
    """A tenth more or less parameters, the FLOP kept, is worse."""
    for ratio, granularity in ((64.0, 16.0), (43.0, 2.0)):
        found = moe_optimum(1e20, granularity, total_per_active=ratio, extrapolate=True)
        assert 6 * found.active_params * found.tokens == pytest.approx(1e20)
        assert found.total_params == pytest.approx(ratio * found.active_params)
        for step in (0.9, 1.1):
            total, tokens = step * found.total_params, found.tokens / step
            assert krajewski2024(total, tokens, granularity, extrapolate=True) > found.loss


def test_as_much_dense_compute_as_the_ratio_says_is_as_good() -> None:
    ratio = dense_compute_ratio(1e19, 8, extrapolate=True)
    moe = moe_optimum(1e19, 8, extrapolate=True)
    assert dense_optimum(ratio * 1e19, extrapolate=True).loss == pytest.approx(moe.loss, rel=1e-9)


def test_optima_beyond_the_fit_are_refused() -> None:
    assert moe_optimum(5e18, 8).total_params < 3 * KRAJEWSKI2024.ranges["total_params"][1]
    for flop in (1e21, 1e14):
        with pytest.raises(ModelError, match="krajewski2024"):
            moe_optimum(flop, 8)
    with pytest.raises(ModelError, match="krajewski2024"):
        dense_optimum(1e24)
