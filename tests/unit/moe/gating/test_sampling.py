"""Samplers against expectations: token by token and count by count, within four standard errors."""

import numpy as np
import pytest

from moesim.errors import ModelError
from moesim.moe.choices import counts
from moesim.moe.gating.expected import EXPECTED, expected_load
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.inclusion import first_order, plackett_luce
from moesim.moe.gating.sampling import FAST, gate_counts, single_counts, topk_counts
from moesim.moe.gating.table import GATES, choose
from tests.unit.moe.gating.reference import Array
from tests.unit.moe.gating.test_rules import GATE_OF

TOKENS = 20_000
SKEWED = np.random.default_rng(12).dirichlet(np.full(64, 0.7))
FLAT = np.full(64, 1 / 64)
LIMITED = ("deepseek_v2", "deepseek_v3")
GATES_TRIED = {
    **GATE_OF,
    "deepseek_v3": Gate(experts=64, top_k=6, groups=8, groups_per_token=3),
}


def _close(found: Array, load: Array, tokens: int) -> None:
    """A count of distinct choices is binomial, so its error is known; flat rules have none.

    Two more may be missing or too many: counts of rare experts are no Gaussians.
    """
    error = (load * (1 - np.minimum(load, 1)) / tokens) ** 0.5
    assert (abs(found / tokens - load) < 4 * error + 1e-3 * load + 2 / tokens).all()


@pytest.mark.parametrize("name", sorted(GATES))
def test_tokens_follow_the_expectation(name: str) -> None:
    shares = FLAT if name in LIMITED else SKEWED
    gate = GATES_TRIED[name]
    tokens = 2048 if name == "base" else TOKENS
    found = choose(name, gate, shares, tokens, generator=np.random.default_rng(21))
    _close(counts(found, 64, 1)[0].astype(float), expected_load(name, gate, shares), tokens)


@pytest.mark.parametrize("name", sorted(GATES))
def test_expectations_follow_permuted_experts(name: str) -> None:
    """Exchangeable rules: with the popularities permuted, the loads are permuted alike."""
    if name in (*LIMITED, "hash", "hierarchical", "mtf_v2", "nested"):
        # groups and the map bind experts to places; equal shares are left alone by any order
        order = np.arange(64)
    else:
        order = np.random.default_rng(1).permutation(64)
    shares = FLAT if name in LIMITED else SKEWED
    gate = GATES_TRIED[name]
    found = expected_load(name, gate, shares[order])
    assert found == pytest.approx(expected_load(name, gate, shares)[order], rel=1e-9)


@pytest.mark.parametrize("name", ["deepseek_v2", "deepseek_v3", "hierarchical", "mtf_v2"])
def test_whole_groups_may_be_permuted(name: str) -> None:
    """Loads of permuted groups, drawn: both scatter round the same mean."""
    order = np.random.default_rng(2).permutation(8)
    permuted = SKEWED.reshape(8, 8)[order].ravel()
    gate = GATES_TRIED[name]
    first = counts(choose(name, gate, permuted, TOKENS, generator=np.random.default_rng(3)), 64, 1)
    other = counts(choose(name, gate, SKEWED, TOKENS, generator=np.random.default_rng(4)), 64, 1)
    a, b = first[0] / TOKENS, other[0].reshape(8, 8)[order].ravel() / TOKENS
    error = ((a * (1 - a) + b * (1 - b)) / TOKENS) ** 0.5
    assert (abs(a - b) <= 4 * error).all()


@pytest.mark.parametrize("name", ["softmax_topk", "gshard_top2", "switch_top1", "base"])
def test_samplers_follow_permuted_experts(name: str) -> None:
    order = np.random.default_rng(5).permutation(64)
    gate, tokens = GATES_TRIED[name], 2048 if name == "base" else TOKENS
    found = choose(name, gate, SKEWED[order], tokens, generator=np.random.default_rng(6))
    load = expected_load(name, gate, SKEWED)[order]
    _close(counts(found, 64, 1)[0].astype(float), load, tokens)


@pytest.mark.parametrize("name", sorted(FAST))
def test_counts_drawn_at_once_follow_the_expectation(name: str) -> None:
    gate = GATES_TRIED[name]
    found = gate_counts(name, gate, SKEWED, TOKENS, ranks=8, generator=np.random.default_rng(31))
    assert found.shape == (8, 64)
    assert found.min() >= 0
    assert found.max() <= TOKENS // 8
    _close(found.sum(axis=0).astype(float), expected_load(name, gate, SKEWED), TOKENS)


@pytest.mark.parametrize("name", ["softmax_topk", "st_moe", "switch_top1", "base"])
def test_no_assignment_is_lost(name: str) -> None:
    gate, generator = GATES_TRIED[name], np.random.default_rng(32)
    for tokens, ranks in ((1000, 3), (4096, 8), (100, 64)):
        found = gate_counts(name, gate, SKEWED, tokens, ranks=ranks, generator=generator)
        assert found.sum() == tokens * gate.top_k
        even = np.array([len(part) for part in np.array_split(np.arange(tokens), ranks)])
        assert found.sum(axis=1).tolist() == (even * gate.top_k).tolist()


@pytest.mark.parametrize("policy", ["all", "none", "threshold", "random_gshard", "random_mtf"])
def test_gshard_counts_scatter_as_tokens_do(policy: str) -> None:
    """Exact in distribution: means and variances of counts over 400 draws of each kind."""
    shares = np.array([0.45, 0.25, 0.15, 0.1, 0.05])
    gate = Gate(experts=5, top_k=2, second_policy=policy)  # type: ignore[arg-type]
    generator, draws, tokens = np.random.default_rng(33), 400, 64
    fast = np.stack([
        gate_counts("gshard_top2", gate, shares, tokens, ranks=1, generator=generator)[0]
        for _ in range(draws)
    ])  # fmt: skip
    slow = np.stack([
        counts(choose("gshard_top2", gate, shares, tokens, generator=generator), 5, 1)[0]
        for _ in range(draws)
    ])  # fmt: skip
    for expert in range(5):
        a, b = fast[:, expert], slow[:, expert]
        assert abs(a.mean() - b.mean()) <= 4 * ((a.var() + b.var()) / draws) ** 0.5
        assert abs(a.var() - b.var()) <= 4 * (2 / draws) ** 0.5 * (a.var() + b.var())


def test_topk_counts_scatter_as_tokens_do() -> None:
    """Means, variances and the covariance of the two most popular of 16 experts, k = 4."""
    shares = np.random.default_rng(34).dirichlet(np.full(16, 2.0))
    inclusion, tokens, draws = plackett_luce(shares, 4), 256, 6000
    generator = np.random.default_rng(35)
    found = topk_counts(inclusion, np.full(draws, tokens), generator)
    assert (found.sum(axis=1) == 4 * tokens).all()
    variance = tokens * inclusion * (1 - inclusion)
    assert (abs(found.mean(axis=0) - tokens * inclusion) < 4 * (variance / draws) ** 0.5).all()
    gate = Gate(experts=16, top_k=4)
    chosen = choose("softmax_topk", gate, shares, 200_000, generator=generator)
    one_hot = np.zeros((200_000, 16))
    np.put_along_axis(one_hot, chosen.experts, 1.0, axis=1)
    expected = tokens * np.cov(one_hot.T)
    drawn = np.cov(found.T)
    assert np.diag(drawn) == pytest.approx(variance, rel=0.1)
    # pair covariances by Hajek, which are an approximation: within a tenth of a variance
    assert abs(drawn - expected).max() < 0.1 * variance.max()


def test_uniform_counts_have_the_variance_of_distinct_choices() -> None:
    """Binomial(256, 1/4): 48, and covariances -48 / 7 as the sum is fixed."""
    found = topk_counts(np.full(8, 0.25), np.full(8000, 256), np.random.default_rng(36))
    covariance = np.cov(found.T)
    assert np.diag(covariance) == pytest.approx(np.full(8, 48.0), rel=4 * (2 / 8000) ** 0.5)
    off = covariance[~np.eye(8, dtype=bool)]
    assert off.mean() == pytest.approx(-48 / 7, rel=0.03)


def test_layers_are_drawn_at_once() -> None:
    """61 layers of 256 experts, each with its own shares, on two ranks or on one."""
    generator = np.random.default_rng(37)
    shares = np.exp(1.05 * generator.standard_normal((61, 256)))
    inclusion = first_order(shares, 8)
    found = topk_counts(inclusion, 4096, generator)
    assert found.shape == (61, 256)
    assert (found.sum(axis=1) == 8 * 4096).all()
    by_rank = topk_counts(inclusion[:, np.newaxis], np.array([300, 500]), generator)
    assert by_rank.shape == (61, 2, 256)
    assert (by_rank.sum(axis=2) == np.array([2400, 4000])).all()
    assert (by_rank.max(axis=(0, 2)) <= np.array([300, 500])).all()


def test_everything_chosen_and_single_choices() -> None:
    generator = np.random.default_rng(38)
    assert topk_counts(np.ones(5), 7, generator).tolist() == [7] * 5
    found = single_counts(np.array([0.5, 0.5, 0.0]), np.array([10, 20]), generator)
    assert found.sum(axis=1).tolist() == [10, 20]
    assert found[:, 2].tolist() == [0, 0]


def test_every_rule_has_an_expectation_or_says_why_not() -> None:
    assert set(EXPECTED) == set(GATES)
    gate = GATES_TRIED["deepseek_v3"]
    for name in LIMITED:
        with pytest.raises(ModelError, match="draw tokens"):
            expected_load(name, gate, SKEWED)
    free = Gate(experts=64, top_k=6)
    for name in LIMITED:
        assert expected_load(name, free, SKEWED) == pytest.approx(plackett_luce(SKEWED, 6))
    with pytest.raises(ModelError, match="with a bias"):
        expected_load("deepseek_v3", Gate(experts=2, bias=(0.1, 0.0)), np.array([0.5, 0.5]))
