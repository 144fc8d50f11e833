"""Dropped shares in closed form against computed tables and against draws."""

import numpy as np
import pytest

from moesim.moe import drops

# Exact sums of binomial tails, C = ceil(k T CF / E), computed apart from moesim with other code;
# columns: experts, tokens, k, capacity factor, dropped share (eight decimals).
UNIFORM = [
    (8, 1024, 1, 1.0, 0.03296259), (8, 1024, 1, 1.25, 4.2e-05), (8, 65536, 1, 1.0, 0.00412301),
    (64, 1024, 1, 1.0, 0.09843922), (64, 1024, 1, 1.25, 0.02241517),
    (64, 1024, 1, 1.5, 0.00304589), (64, 4096, 1, 1.25, 0.00127126),
    (128, 1024, 1, 1.0, 0.13904011), (128, 1024, 1, 2.0, 0.00076016),
    (128, 16384, 1, 1.25, 8.654e-05), (256, 1024, 1, 1.0, 0.1949848),
    (256, 16384, 1, 1.25, 0.00132177), (2048, 4096, 1, 1.0, 0.27060447),
    (2048, 4096, 1, 1.25, 0.10894268), (2048, 4096, 1, 1.5, 0.10894268),
    (2048, 65536, 1, 1.5, 0.00024616), (8, 1024, 2, 1.0, 0.02158577),
    (8, 16384, 2, 1.0, 0.00539823), (64, 1024, 6, 1.0, 0.03872735),
    (64, 1024, 6, 1.25, 0.00020902), (64, 1024, 8, 1.0, 0.03296259),
    (128, 1024, 8, 1.25, 0.00107823), (128, 16384, 8, 1.0, 0.01207008),
    (256, 1024, 8, 1.0, 0.06923232), (256, 1024, 8, 1.5, 0.0002068),
    (256, 4096, 8, 1.25, 7.592e-05), (256, 16384, 8, 1.0, 0.01735043),
]  # fmt: skip

# Beta-binomial tails for T = 65,536 and k = 1, from the same computation.
# Columns: experts, concentration, CV of a share, capacity factor, dropped share (six decimals).
DIRICHLET = [
    (8, 0.5, 1.1832, 1.0, 0.451364), (8, 1.0, 0.8819, 1.25, 0.256888),
    (8, 5.0, 0.4132, 2.0, 0.004389), (8, 100.0, 0.0935, 1.25, 0.000204),
    (64, 0.5, 1.3817, 4.0, 0.072772), (64, 2.0, 0.6988, 1.5, 0.122046),
    (64, 20.0, 0.2218, 1.0, 0.088995), (128, 1.0, 0.9922, 1.0, 0.366795),
    (128, 5.0, 0.4451, 1.25, 0.090166), (256, 0.5, 1.4060, 1.0, 0.483465),
    (256, 5.0, 0.4462, 1.5, 0.044086), (256, 100.0, 0.0998, 1.0, 0.04691),
]  # fmt: skip


@pytest.mark.parametrize("row", UNIFORM)
def test_uniform_choices_drop_what_the_table_says(
    row: tuple[int, int, int, float, float],
) -> None:
    experts, tokens, top_k, factor, expected = row
    capacity = int(np.ceil(tokens * top_k * factor / experts))
    assert drops.uniform(tokens, experts, top_k, capacity) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("row", DIRICHLET)
def test_dirichlet_shares_drop_what_the_table_says(
    row: tuple[int, float, float, float, float],
) -> None:
    experts, concentration, cv, factor, expected = row
    capacity = int(np.ceil(65536 * factor / experts))
    found = drops.dirichlet(65536, experts, 1, capacity, concentration)
    assert found == pytest.approx(expected, abs=1e-6)
    assert drops.dirichlet_cv(experts, concentration) == pytest.approx(cv, abs=5e-5)
    back = drops.concentration_for(experts, drops.dirichlet_cv(experts, concentration))
    assert back == pytest.approx(concentration, rel=1e-9)


def test_a_case_small_enough_to_count() -> None:
    # two tokens, two experts, one choice, one slot: the four outcomes leave 0 or 1 of 2 tokens
    # without a slot; both choose the same expert in two of four: 1/2 * 1/2
    assert drops.uniform(2, 2, 1, 1) == pytest.approx(0.25)
    # three tokens, one slot: loads of an expert are 0 (1/8), 1 (3/8), 2 (3/8), 3 (1/8);
    # overflow 2 * (3/8 * 1 + 1/8 * 2) = 5/4 of 3 tokens
    assert drops.uniform(3, 2, 1, 1) == pytest.approx(5 / 12)
    # Dirichlet(1, 1): the load of an expert is uniform on 0..2, so 2 * 1/3 * 1 of 2
    assert drops.dirichlet(2, 2, 1, 1, 1.0) == pytest.approx(1 / 3)


def test_choosing_all_experts_fills_them_with_every_token() -> None:
    assert drops.uniform(100, 4, 4, 75) == pytest.approx(0.25)
    assert drops.uniform(100, 4, 4, 100) == 0.0
    assert drops.dirichlet(100, 4, 4, 75, 1.0) == pytest.approx(0.25)


def test_no_slots_drop_everything_and_enough_slots_nothing() -> None:
    for experts, top_k in ((8, 1), (64, 6)):
        assert drops.uniform(512, experts, top_k, 0) == pytest.approx(1.0)
        assert drops.uniform(512, experts, top_k, 512) == 0.0
        assert drops.dirichlet(512, experts, top_k, 0, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("experts", "top_k"), [(8, 1), (8, 2), (16, 4), (64, 1)])
def test_uniform_choices_against_draws(experts: int, top_k: int) -> None:
    """Tokens choose the k largest of independent scores: within three standard errors."""
    generator = np.random.default_rng(experts + top_k)
    tokens, draws = 256, 400
    capacity = int(np.ceil(tokens * top_k / experts))
    found = []
    for _ in range(draws):
        scores = generator.random((tokens, experts))
        chosen = np.argpartition(scores, -top_k, axis=1)[:, -top_k:]
        counts = np.bincount(chosen.ravel(), minlength=experts)
        found.append(np.maximum(counts - capacity, 0).sum() / (tokens * top_k))
    error = float(np.std(found)) / draws**0.5
    expected = drops.uniform(tokens, experts, top_k, capacity)
    assert abs(float(np.mean(found)) - expected) < 3 * error


def test_dirichlet_shares_against_draws() -> None:
    generator = np.random.default_rng(3)
    tokens, experts, capacity, draws = 512, 16, 40, 3000
    shares = generator.dirichlet(np.full(experts, 2.0), draws)
    counts = np.stack([generator.multinomial(tokens, share) for share in shares])
    found = np.maximum(counts - capacity, 0).sum(axis=1) / tokens
    error = float(found.std()) / draws**0.5
    expected = drops.dirichlet(tokens, experts, 1, capacity, 2.0)
    assert abs(float(found.mean()) - expected) < 3 * error


def test_gaussian_shortcut_at_factor_one() -> None:
    # at CF = 1: sqrt((1 - k/E) / (2 pi mu)), mu = k T / E, for large loads
    expected = ((1 - 2 / 8) / (2 * np.pi * 2 * 65536 / 8)) ** 0.5
    assert drops.uniform(65536, 8, 2, 16384) == pytest.approx(expected, rel=1e-3)
