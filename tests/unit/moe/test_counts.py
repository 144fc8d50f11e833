"""Counts of experts: means, variances and the batch-size law, exact in expectation."""

from itertools import combinations
from random import Random
from time import perf_counter

import numpy as np
import pytest

from moesim.moe.burst import (
    BURSTS,
    concentration,
    counting_noise,
    cv_squared,
    design,
    fit_burst,
    independent_phi,
)
from moesim.moe.counts import Batch, draw, draw_choices, inclusion, layer_streams
from moesim.moe.loads import Counts, Shares

# CV of real DeepSeek-V2-Lite loads by batch size, mean over windows, layers and tasks.
MEASURED = {
    "one_task_in_order": {16: 1.29, 64: 0.983, 256: 0.875, 1024: 0.843, 4096: 0.829},
    "one_task_shuffled": {16: 1.122, 64: 0.911, 256: 0.851, 1024: 0.83},
    "four_task_mix": {16: 0.903, 64: 0.625, 256: 0.545, 1024: 0.519, 8192: 0.511},
}


def _repeat(p: Shares, batch: Batch, times: int, seed: int = 0) -> Counts:
    generator = np.random.default_rng(seed)
    return draw(np.tile(p, (times, 1)), batch, [generator] * times)


def _shares_with(cv: float, experts: int) -> Shares:
    """Shares with this CV exactly: standardised normal draws, bent until none is negative."""
    weights = np.exp(np.random.default_rng(1).standard_normal(experts))
    for _ in range(60):  # CV of w^t rises with t
        relative = weights / weights.mean()
        weights = weights ** (cv / float(relative.std()))
    return np.asarray(weights / weights.sum())


def test_counts_sum_to_the_assignments_and_no_expert_gets_a_token_twice() -> None:
    random, generator = Random(1), np.random.default_rng(1)
    for _ in range(400):
        experts = random.choice([1, 2, 5, 64])
        top_k, tokens = random.randint(1, experts), random.choice([0, 1, 5, 64, 1000])
        weights = np.exp(random.choice([0.0, 1.0, 8.0, 80.0]) * generator.standard_normal(experts))
        p = inclusion(weights / weights.sum(), top_k)
        phi = random.choice([None, 0.9, 1.7, 30.0])
        counts = draw(p[None], Batch(tokens=tokens, top_k=top_k, phi=phi), [generator])[0]
        assert int(counts.sum()) == tokens * top_k
        assert 0 <= int(counts.min()) <= int(counts.max()) <= tokens


def test_inclusion_is_k_times_the_share_and_at_most_one() -> None:
    assert inclusion(np.array([0.1, 0.2, 0.3, 0.4]), 2) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    # 1.4 is cut to 1; what is left, 1, goes to the others 1 : 2
    assert inclusion(np.array([0.7, 0.1, 0.2]), 2) == pytest.approx([1, 1 / 3, 2 / 3])
    # cutting the first raises the second above 1 in its turn
    assert inclusion(np.array([0.7, 0.25, 0.03, 0.02]), 3) == pytest.approx([1, 1, 0.6, 0.4])
    assert inclusion(np.array([1.0, 0.0, 0.0]), 2) == pytest.approx([1, 0.5, 0.5])
    assert inclusion(np.array([0.9, 0.1]), 2) == pytest.approx([1, 1])


@pytest.mark.parametrize("phi", [None, 1.7])
@pytest.mark.parametrize(
    ("experts", "top_k", "tokens"), [(8, 2, 16), (64, 6, 100), (16, 8, 40), (64, 1, 16)]
)
def test_mean_and_variance_of_each_count(
    phi: float | None, experts: int, top_k: int, tokens: int
) -> None:
    """Mean n p within 4.5 sigma; the variances sum to n sum p (1 - p), or phi n k (1 - k/E)."""
    p, times = inclusion(_shares_with(0.7, experts), top_k), 2500
    counts = _repeat(p, Batch(tokens=tokens, top_k=top_k, phi=phi), times)
    alone = tokens * float((p * (1 - p)).sum())
    variance = alone if phi is None else phi * tokens * top_k * (1 - top_k / experts)
    error = np.sqrt(np.maximum(1e-9, tokens * p * (1 - p) * variance / alone) / times)
    assert float(np.abs((counts.mean(axis=0) - tokens * p) / error).max()) < 4.5
    squares = ((counts - tokens * p) ** 2).sum(axis=1)
    assert abs(float(squares.mean()) - variance) < 4 * float(squares.std()) / times**0.5


def test_top_1_counts_without_bursts_are_multinomial() -> None:
    """Covariance -n s_i s_j of two experts: -100 * 0.2 * 0.5 = -10, within 4 sigma."""
    counts = _repeat(np.array([0.2, 0.3, 0.5]), Batch(tokens=100, top_k=1), 6000)
    product = (counts[:, 0] - 20) * (counts[:, 2] - 50)
    assert abs(float(product.mean()) + 10) < 4 * float(product.std()) / 6000**0.5


def test_uniform_pairs_of_experts_are_as_likely_as_each_other() -> None:
    """k = 2 of 4 evenly: one token takes each of six pairs with probability 1/6."""
    counts = _repeat(np.full(4, 0.5), Batch(tokens=1, top_k=2), 6000)
    codes = counts @ np.array([1, 2, 4, 8])
    seen = np.array([(codes == code).sum() for code in (3, 5, 9, 6, 10, 12)])
    assert int(seen.sum()) == 6000
    # chi-square of 5 degrees of freedom: 20.5 is exceeded once in a thousand
    assert float(((seen - 1000) ** 2 / 1000).sum()) < 20.5


@pytest.mark.parametrize("case", sorted(BURSTS))
def test_published_fits_say_what_was_measured(case: str) -> None:
    """CV^2(n) = CVinf^2 + phi E (1 - k/E) / (n k) within 2.6 % of the CV, E = 64 and k = 6."""
    for tokens, cv in MEASURED[case].items():
        assert cv_squared(BURSTS[case], tokens, 64, 6) ** 0.5 == pytest.approx(cv, rel=0.026)


@pytest.mark.parametrize("case", sorted(BURSTS))
def test_sampled_counts_follow_the_published_fits(case: str) -> None:
    """Sampled with the CVinf and phi of the fit, the mean CV of n tokens is that of real loads.

    Within 2.6 %, what the fit itself is off. The mix is drawn with independent tokens, whose phi
    is 0.973: none below that can be drawn.
    """
    law = BURSTS[case]
    p = inclusion(_shares_with(law.cv, 64), 6)
    for tokens, cv in MEASURED[case].items():
        counts = _repeat(p, Batch(tokens=tokens, top_k=6, phi=law.phi), 800)
        found = counts.std(axis=1) / counts.mean(axis=1)
        assert float(found.mean()) == pytest.approx(cv, rel=0.026)


@pytest.mark.parametrize(("phi", "tokens"), [(1.0, 16), (1.71, 16), (1.71, 1000), (3.0, 100)])
def test_cv_squared_follows_the_law_exactly(phi: float, tokens: int) -> None:
    """E[CV^2(n)] = 0.8^2 + phi 58 / (6 n), within 4 sigma of 2000 draws."""
    p = inclusion(_shares_with(0.8, 64), 6)
    counts = _repeat(p, Batch(tokens=tokens, top_k=6, phi=phi), 2000)
    square = (counts.std(axis=1) / counts.mean(axis=1)) ** 2
    expected = 0.64 + phi * 58 / (6 * tokens)
    assert abs(float(square.mean()) - expected) < 4 * float(square.std()) / 2000**0.5


def test_closed_forms_of_the_burst_law() -> None:
    # 8 experts, k = 2, 12 tokens: (8 - 2) / (12 * 2)
    assert counting_noise(12, 8, 2) == 0.25
    # cv^2 = 0.36: 1 - 0.36 * 2 / 6
    assert independent_phi(np.array([0.6]), 8, 2) == pytest.approx([0.88])
    # even shares: design = phi; at 21 tokens and design 3: A = 18 / 2
    assert design(3.0, np.full((1, 8), 0.25)) == pytest.approx([3.0])
    assert concentration(21, 3.0) == 9.0
    assert concentration(21, 1.0) == np.inf
    # a batch of two has the concentration of one of sixteen: 13 / 2
    assert concentration(2, 3.0) == concentration(16, 3.0) == 6.5
    # tokens that repel each other count as independent
    assert design(0.5, np.full((1, 8), 0.25)) == pytest.approx([1.0])


def test_the_fit_finds_the_constants_of_the_law() -> None:
    sizes = (16, 64, 256, 1024)
    cvs = [(0.8**2 + 1.5 * 58 / (6 * n)) ** 0.5 for n in sizes]
    law = fit_burst(sizes, cvs, 64, 6)
    assert (law.cv, law.phi) == pytest.approx((0.8, 1.5))


def test_the_fit_to_the_measured_cvs_gives_the_published_constants() -> None:
    """The rounded table gives 0.831 and 1.71 back within 2 % and 7 %."""
    table = MEASURED["one_task_in_order"]
    law = fit_burst(list(table), list(table.values()), 64, 6)
    assert law.cv == pytest.approx(0.831, rel=0.02)
    assert law.phi == pytest.approx(1.71, rel=0.07)


def test_choices_are_distinct_and_as_likely_as_their_probabilities() -> None:
    p = inclusion(_shares_with(0.9, 16), 4)
    chosen = draw_choices(p, 20_000, np.random.default_rng(2))
    assert chosen.experts.shape == (20_000, 4)
    ordered = np.sort(chosen.experts, axis=1)
    assert (ordered[:, 1:] > ordered[:, :-1]).all()
    rates = np.bincount(chosen.experts.ravel(), minlength=16) / 20_000
    assert float(np.abs((rates - p) / np.sqrt(p * (1 - p) / 20_000)).max()) < 4
    assert chosen.weights.sum(axis=1) == pytest.approx(np.ones(20_000))


def test_all_pairs_of_even_experts_are_chosen_equally_often() -> None:
    """All six pairs of four experts, unordered, within a chi-square once in a thousand."""
    chosen = np.sort(draw_choices(np.full(4, 0.5), 6000, np.random.default_rng(3)).experts, axis=1)
    pairs = list(combinations(range(4), 2))
    seen = np.array([(chosen == pair).all(axis=1).sum() for pair in pairs])
    assert float(((seen - 1000) ** 2 / 1000).sum()) < 20.5


def test_61_layers_of_256_experts_are_drawn_and_placed_in_under_50_ms() -> None:
    """4,096 tokens, top 8, EP 64, streams included; the fastest of five runs."""
    weights = np.exp(1.05 * np.random.default_rng(0).standard_normal((61, 256)))
    shares = weights / weights.sum(axis=1, keepdims=True)
    seconds = []
    for run in range(5):
        start = perf_counter()
        generators = layer_streams(run, "counts", range(61))
        counts = draw(inclusion(shares, 8), Batch(tokens=4096, top_k=8, phi=1.7), generators)
        rows = counts.reshape(61, 64, -1).sum(axis=2)
        total = float((rows.max(axis=1) / rows.mean(axis=1)).sum())
        seconds.append(perf_counter() - start)
        assert total > 61
    assert min(seconds) < 0.050
