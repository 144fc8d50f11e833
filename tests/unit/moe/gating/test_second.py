"""The second expert's chance in three code bases, and how many experts a token uses by it."""

import numpy as np
import pytest

from moesim.errors import ModelError
from moesim.moe.choices import assignments_per_token
from moesim.moe.gating.gate import Gate, SecondPolicy
from moesim.moe.gating.gshard import gshard_k_eff, gshard_load, gshard_top2, second_sent
from moesim.moe.gating.second import POLICIES, chance, sent

WEIGHTS = np.array([0.0, 0.05, 0.1, 0.2, 0.25, 0.5])


def _gate(policy: SecondPolicy, **changes: object) -> Gate:
    return Gate(experts=8, top_k=2, second_policy=policy, **changes)  # type: ignore[arg-type]


def test_gshard_sends_the_second_with_twice_its_weight() -> None:
    # GShard, algorithm 1: dispatched if 2 g2 > U(0, 1)
    assert chance(_gate("random_gshard"), WEIGHTS).tolist() == [0.0, 0.1, 0.2, 0.4, 0.5, 1.0]


def test_mesh_tensorflow_sends_the_second_with_its_weight_over_a_fifth() -> None:
    # min(1, g2 / 0.2), the threshold being 0.2 by default
    found = chance(_gate("random_mtf"), WEIGHTS)
    assert found == pytest.approx([0.0, 0.25, 0.5, 1.0, 1.0, 1.0])


def test_the_other_policies() -> None:
    assert chance(_gate("all"), WEIGHTS).tolist() == [1.0] * 6
    assert chance(_gate("sampling"), WEIGHTS).tolist() == [1.0] * 6
    assert chance(_gate("none"), WEIGHTS).tolist() == [0.0] * 6
    assert chance(_gate("threshold"), WEIGHTS).tolist() == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert len(POLICIES) == 6


def test_tokens_are_sent_as_often_as_the_chance_says() -> None:
    weights = np.full(40_000, 0.15)
    for policy, expected in (("random_gshard", 0.3), ("random_mtf", 0.75)):
        found = sent(_gate(policy), weights, np.random.default_rng(0)).mean()  # type: ignore[arg-type]
        assert abs(found - expected) < 4 * (expected * (1 - expected) / 40_000) ** 0.5


def test_fairseq_rejects_more_where_weights_are_not_normalised() -> None:
    """g2 of a softmax over all is smaller than g2 / (g1 + g2), so 2 g2 > U holds less often."""
    shares = np.full(8, 1 / 8)
    plain, normalised = (
        gshard_top2(_gate("random_gshard", normalise=flag), shares, 4000, np.random.default_rng(1))
        for flag in (False, True)
    )
    # the same draws and coins: who is sent without is sent with
    assert not ((plain.experts[:, 1] >= 0) & (normalised.experts[:, 1] < 0)).any()
    assert assignments_per_token(plain).mean() < assignments_per_token(normalised).mean()


def _law(weights: np.ndarray[tuple[int], np.dtype[np.float64]], policy: SecondPolicy) -> float:
    """Return 1 + E[chance] over a sample of g2."""
    return 1.0 + float(chance(_gate(policy), weights).mean())


def test_k_eff_under_stated_laws_of_the_second_weight() -> None:
    flat, certain = np.full(10, 0.5), np.zeros(10)
    uniform = (np.arange(100_000) + 0.5) / 200_000  # g2 uniform on [0, 1/2]
    assert _law(flat, "random_gshard") == 2.0  # flat routers stay at two experts
    assert _law(certain, "random_gshard") == 1.0  # confident ones approach one
    assert _law(uniform, "random_gshard") == pytest.approx(1.5)
    # P(g2 > 0.2) = 0.6, and half of the rest: 0.6 + 0.4 / 2
    assert _law(uniform, "random_mtf") == pytest.approx(1.8)


def test_k_eff_of_many_equal_experts_in_closed_form() -> None:
    """The ratio r of the two best is uniform there: E[2 r / (1 + r)] = 2 (1 - ln 2)."""
    many = np.full(4096, 1 / 4096)
    gate = Gate(experts=4096, top_k=2, second_policy="random_gshard")
    assert gshard_k_eff(gate, many) == pytest.approx(1 + 2 * (1 - np.log(2)), abs=2e-4)
    # g2 > 0.2 is r > 1/4
    gate = Gate(experts=4096, top_k=2, second_policy="threshold", threshold=0.2)
    assert gshard_k_eff(gate, many) == pytest.approx(1.75, abs=1e-4)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9])
def test_chance_given_the_first_in_closed_form(share: float) -> None:
    """2/c (1/(a-1) - ln a/(a-1)^2) with a = 2/c, c = 1/(1 - s); 1/2 of 2/c at a = 1."""
    a = 2 * (1 - share)
    bracket = 0.5 if a == 1 else 1 / (a - 1) - np.log(a) / (a - 1) ** 2
    shares = np.array([share, 1 - share])
    found = second_sent(Gate(experts=2, top_k=2, second_policy="random_gshard"), shares)
    assert found[0] == pytest.approx(a * bracket, rel=1e-9)


def test_an_expert_that_takes_all_leaves_nothing_to_send() -> None:
    shares = np.array([1.0, 0.0, 0.0])
    for policy in ("random_gshard", "random_mtf", "threshold"):
        assert gshard_k_eff(_gate(policy), shares) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("policy", ["random_gshard", "random_mtf", "threshold", "all", "none"])
def test_k_eff_and_loads_against_draws(policy: SecondPolicy, sharpness: float) -> None:
    shares = np.array([0.4, 0.2, 0.15, 0.1, 0.05, 0.05, 0.03, 0.02])
    gate, tokens = _gate(policy, sharpness=sharpness), 60_000
    found = gshard_top2(gate, shares, tokens, np.random.default_rng(4))
    used = assignments_per_token(found)
    error = 4 * float(used.std()) / tokens**0.5
    assert abs(used.mean() - gshard_k_eff(gate, shares)) <= error + 1e-9
    load = gshard_load(gate, shares)
    assert load.sum() == pytest.approx(gshard_k_eff(gate, shares))
    drawn = np.bincount(found.experts[found.experts >= 0], minlength=8) / tokens
    assert (abs(drawn - load) < 4 * (load * (1 - load) / tokens) ** 0.5).all()


def test_sampling_is_flatter_than_taking_the_second_best() -> None:
    shares = np.array([0.7, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01])
    drawn = gshard_top2(_gate("sampling"), shares, 20_000, np.random.default_rng(2))
    taken = gshard_top2(_gate("all"), shares, 20_000, np.random.default_rng(2))
    assert drawn.weights[:, 1].mean() < taken.weights[:, 1].mean()
    assert drawn.weights[:, 1].max() <= 0.5  # the first is the best all the same
    with pytest.raises(ModelError, match="equal shares only"):
        gshard_load(_gate("sampling"), shares)


def test_no_closed_form_without_normalised_weights() -> None:
    with pytest.raises(ModelError, match="draw tokens"):
        second_sent(_gate("random_gshard", normalise=False), np.full(8, 1 / 8))
