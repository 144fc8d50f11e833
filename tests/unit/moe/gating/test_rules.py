"""Each rule against the same rule written out token by token, on the same draws."""

from dataclasses import replace
from math import exp

import numpy as np
import pytest

from moesim.errors import ModelError
from moesim.moe.choices import Choices, assignments_per_token, counts, parts_reached
from moesim.moe.gating.gate import Gate, Level
from moesim.moe.gating.table import GATES, choose
from moesim.moe.gating.token_choice import jitter_noise
from tests.unit.moe.gating.reference import (
    Array,
    Token,
    as_tokens,
    draw_logits,
    in_groups,
    ranking,
    second_is_sent,
    softmax,
    top_k,
)

TOKENS = 200
SHARES = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])


def _choose(name: str, gate: Gate, shares: Array = SHARES, seed: int = 5) -> Choices:
    return choose(name, gate, shares, TOKENS, generator=np.random.default_rng(seed))


def _same(found: Choices, expected: list[Token]) -> None:
    tokens = as_tokens(found.experts, found.weights)
    assert len(tokens) == len(expected)
    for token, wanted in zip(tokens, expected, strict=True):
        assert list(token) == list(wanted)  # first choice first
        assert list(token.values()) == pytest.approx(list(wanted.values()), rel=1e-9)
    missing = found.experts < 0
    assert (found.weights[missing] == 0).all()


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_softmax_topk(k: int, normalise: bool) -> None:
    rows = draw_logits(SHARES, TOKENS, np.random.default_rng(5), sharpness=1.5)
    gate = Gate(experts=8, top_k=k, normalise=normalise, sharpness=1.5)
    _same(_choose("softmax_topk", gate), [top_k(row, k, normalise=normalise) for row in rows])


def test_noisy_topk() -> None:
    generator = np.random.default_rng(5)
    clean = np.array(draw_logits(SHARES, TOKENS, generator))
    noisy = clean + 0.7 * generator.standard_normal(clean.shape)
    expected = [top_k(row, 2, normalise=True) for row in noisy.tolist()]
    _same(_choose("noisy_topk", Gate(experts=8, top_k=2, noise=0.7)), expected)


@pytest.mark.parametrize(("name", "k"), [("switch_top1", 1), ("st_moe", 2)])
def test_jittered_rules(name: str, k: int) -> None:
    generator = np.random.default_rng(5)
    clean = np.array(draw_logits(SHARES, TOKENS, generator))
    # half width 0.3: variance 0.09 / 3 of the variance pi^2 / 6 of a Gumbel logit
    noise = (0.03 * np.pi**2 / 6) ** 0.5
    noisy = clean + noise * generator.standard_normal(clean.shape)
    expected = [top_k(row, k, normalise=False) for row in noisy.tolist()]
    _same(_choose(name, Gate(experts=8, top_k=k, jitter=0.3)), expected)


def test_jitter_of_a_logit_is_what_jitter_of_the_input_makes_of_it() -> None:
    """Logits as sums of 512 products, whose inputs are multiplied with U(0.9, 1.1)."""
    generator = np.random.default_rng(3)
    inputs, weights = generator.standard_normal((4000, 512)), generator.standard_normal(512)
    clean = inputs @ weights
    jittered = (inputs * generator.uniform(0.9, 1.1, inputs.shape)) @ weights
    scale = jitter_noise(Gate(experts=8, jitter=0.1)) / (np.pi / 6**0.5) * clean.std()
    # a standard deviation from 4000 draws is known to 1 / sqrt(8000)
    assert (jittered - clean).std() == pytest.approx(scale, rel=4 / 8000**0.5)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("policy", ["all", "none", "threshold", "random_gshard", "random_mtf"])
def test_gshard_top2(policy: str, normalise: bool) -> None:
    generator = np.random.default_rng(5)
    rows = draw_logits(SHARES, TOKENS, generator)
    coins = generator.random(TOKENS)
    expected = []
    for row, coin in zip(rows, coins, strict=True):
        token = top_k(row, 2, normalise=normalise)
        second = list(token)[1]
        if not second_is_sent(policy, token[second], 0.25, coin):
            del token[second]
        expected.append(token)
    gate = Gate(
        experts=8, top_k=2, second_policy=policy, threshold=0.25, normalise=normalise,  # type: ignore[arg-type]
    )  # fmt: skip
    _same(_choose("gshard_top2", gate), expected)


def test_gshard_top2_sampling() -> None:
    generator = np.random.default_rng(5)
    rows = draw_logits(SHARES, TOKENS, generator)
    waits = generator.standard_exponential((TOKENS, 8))
    expected = []
    for row, wait in zip(rows, waits, strict=True):
        probability, first = softmax(row), ranking(row)[0]
        # an exponential race won with probability in proportion to exp(logit)
        times = [w / p if e != first else 1e300 for e, (w, p) in enumerate(zip(wait, probability, strict=True))]  # fmt: skip  # noqa: E501
        second = min(range(8), key=times.__getitem__)
        total = probability[first] + probability[second]
        expected.append({e: probability[e] / total for e in (first, second)})
    gate = Gate(experts=8, top_k=2, second_policy="sampling")
    found = _choose("gshard_top2", gate)
    _same(found, expected)


GROUPED = Gate(experts=8, top_k=3, groups=4, groups_per_token=2)


def test_deepseek_v2() -> None:
    rows = draw_logits(SHARES, TOKENS, np.random.default_rng(5))
    expected = []
    for row in rows:
        probability = softmax(row)
        chosen = in_groups(probability, 4, 2, 3, best=1)
        expected.append({expert: 16 * probability[expert] for expert in chosen})
    _same(_choose("deepseek_v2", replace(GROUPED, normalise=False, scale=16)), expected)


def test_deepseek_v3() -> None:
    rows = draw_logits(SHARES, TOKENS, np.random.default_rng(5))
    bias = (-0.4, -0.3, -0.1, 0.0, 0.0, 0.1, 0.2, 0.3)
    expected = []
    for row in rows:
        affinity = [1 / (1 + exp(-value)) for value in row]
        biased = [a + b for a, b in zip(affinity, bias, strict=True)]
        chosen = in_groups(biased, 4, 2, 3, best=2)
        total = sum(affinity[expert] for expert in chosen)
        expected.append({expert: 2.5 * affinity[expert] / total for expert in chosen})
    _same(_choose("deepseek_v3", replace(GROUPED, bias=bias, scale=2.5)), expected)


@pytest.mark.parametrize(("factor", "taken"), [(1.5, 38), (0.75, 19)])  # round(200 CF / 8)
def test_expert_choice(factor: float, taken: int) -> None:
    rows = [softmax(row) for row in draw_logits(SHARES, TOKENS, np.random.default_rng(5))]
    takers: list[Token] = [{} for _ in rows]
    for expert in range(8):
        for token in ranking([row[expert] for row in rows])[:taken]:
            takers[token][expert] = rows[token][expert]
    expected = [dict(sorted(token.items(), key=lambda item: -item[1])) for token in takers]
    found = _choose("expert_choice", Gate(experts=8, capacity_factor=factor))
    _same(found, expected)
    assert counts(found, 8, 1).tolist() == [[taken] * 8]
    assert assignments_per_token(found).max() > 1


def test_hierarchical_with_a_router_per_group() -> None:
    generator = np.random.default_rng(5)
    groups = SHARES.reshape(4, 2).sum(axis=1)
    above = draw_logits(groups, TOKENS, generator)
    chosen = [top_k(row, 2, normalise=True) for row in above]
    waits = generator.standard_exponential((2 * TOKENS, 2))
    expected = []
    for number, token in enumerate(chosen):
        leaves: Token = {}
        for slot, (group, weight) in enumerate(token.items()):
            inside = SHARES.reshape(4, 2)[group] / groups[group]
            row = [float(np.log(2 * s / x)) for s, x in zip(inside, waits[2 * number + slot], strict=True)]  # fmt: skip  # noqa: E501
            (expert,) = top_k(row, 1, normalise=True)
            leaves[2 * group + expert] = weight
        expected.append(leaves)
    levels = (Level(fanout=4, limit=2, link="scale_out"), Level(fanout=2, limit=1))
    _same(_choose("hierarchical", Gate(experts=8, top_k=2, levels=levels)), expected)


def _sent(
    shares: Array, tokens: int, policy: str, generator: np.random.Generator
) -> list[list[tuple[int, float]]]:
    """Return the experts and weights of a top-2 router whose second may be rejected."""
    rows = draw_logits(shares, tokens, generator)
    found = []
    for row, coin in zip(rows, generator.random(tokens), strict=True):
        (first, g1), (second, g2) = top_k(row, 2, normalise=True).items()
        kept = second_is_sent(policy, g2, 0.25, coin)
        found.append([(first, g1), (second, g2)] if kept else [(first, g1)])
    return found


@pytest.mark.parametrize("policy", ["all", "none", "threshold", "random_gshard", "random_mtf"])
def test_mtf_v2(policy: str) -> None:
    """First-choice group: importance 1, up to two experts; second: 0.5, the best with weight 1."""
    generator = np.random.default_rng(5)
    together = SHARES.reshape(2, 4).sum(axis=1)
    groups = _sent(together, TOKENS, policy, generator)
    leaves: list[Token] = [{} for _ in range(TOKENS)]
    for group in range(2):
        inside = SHARES.reshape(2, 4)[group] / together[group]
        first = [t for t in range(TOKENS) if groups[t][0][0] == group]
        for t, chosen in zip(first, _sent(inside, len(first), policy, generator), strict=True):
            leaves[t] |= {4 * group + e: groups[t][0][1] * weight for e, weight in chosen}
        second = [t for t in range(TOKENS) if len(groups[t]) > 1 and groups[t][1][0] == group]
        rows = draw_logits(inside, len(second), generator)
        for t, row in zip(second, rows, strict=True):
            leaves[t][4 * group + ranking(row)[0]] = groups[t][1][1]
    expected = [dict(sorted(token.items(), key=lambda item: -item[1])) for token in leaves]
    levels = (Level(fanout=2, limit=2), Level(fanout=4, limit=2))
    gate = Gate(experts=8, top_k=3, levels=levels, second_policy=policy, threshold=0.25)  # type: ignore[arg-type]
    _same(_choose("mtf_v2", gate), expected)


def test_hierarchical_with_one_router_is_device_limited_routing() -> None:
    levels = (Level(fanout=4, limit=2, link="scale_out"), Level(fanout=2, limit=3))
    gate = Gate(experts=8, top_k=3, levels=levels, shared_router=True)
    expected = _choose("deepseek_v2", GROUPED)
    found = _choose("hierarchical", gate)
    assert found.experts.tolist() == expected.experts.tolist()
    assert found.weights == pytest.approx(expected.weights)


def test_three_levels_of_one_router() -> None:
    levels = (Level(fanout=2, limit=1), Level(fanout=2, limit=2), Level(fanout=2, limit=3))
    gate = Gate(experts=8, top_k=3, levels=levels, shared_router=True)
    found = _choose("hierarchical", gate)
    assert (parts_reached(found, 8, 2) == 1).all()


def test_hash_sends_a_token_id_to_the_same_expert_always() -> None:
    frequencies = np.array([0.5, 0.3, 0.2])
    found = _choose("hash", Gate(experts=64), frequencies)
    ids = np.searchsorted([0.5, 0.8, 1.0], np.random.default_rng(5).random(TOKENS))
    assert len({(int(i), int(e)) for i, e in zip(ids, found.experts[:, 0], strict=True)}) == 3
    assert (found.weights == 1).all()


def test_choices_are_distinct_and_fall_in_weight() -> None:
    generator = np.random.default_rng(8)
    for name, gate in GATE_OF.items():
        shares = generator.dirichlet(np.full(64, 0.5))
        found = choose(name, gate, shares, 300, generator=generator)
        for token in as_tokens(found.experts, found.weights):
            weights = list(token.values())
            assert weights == sorted(weights, reverse=True) or gate.second_policy == "sampling"
        rows = np.sort(found.experts, axis=1)
        assert not ((np.diff(rows, axis=1) == 0) & (rows[:, 1:] >= 0)).any(), name
        assert found.experts.max() < 64


LEVELS = (Level(fanout=8, limit=2), Level(fanout=8, limit=2))
GATE_OF = {
    "softmax_topk": Gate(experts=64, top_k=6),
    "noisy_topk": Gate(experts=64, top_k=4, noise=1.0),
    "gshard_top2": Gate(experts=64, top_k=2, second_policy="random_gshard"),
    "switch_top1": Gate(experts=64, jitter=0.01),
    "st_moe": Gate(experts=64, top_k=2, jitter=0.01),
    "expert_choice": Gate(experts=64, capacity_factor=2.0),
    "base": Gate(experts=64),
    "hash": Gate(experts=64),
    "deepseek_v2": Gate(experts=64, top_k=6, groups=8, groups_per_token=3),
    "hierarchical": Gate(experts=64, top_k=4, levels=LEVELS),
    "mtf_v2": Gate(experts=64, top_k=3, levels=LEVELS, second_policy="random_mtf"),
    "nested": Gate(experts=64, top_k=4, levels=LEVELS),
}


def test_every_rule_is_met() -> None:
    assert set(GATE_OF) | {"deepseek_v3"} == set(GATES)


@pytest.mark.parametrize("name", ["deepseek_v2", "deepseek_v3"])
def test_a_group_limit_is_never_exceeded(name: str) -> None:
    generator = np.random.default_rng(1)
    for groups, keep, k in ((8, 4, 8), (8, 3, 6), (4, 1, 5), (2, 1, 8), (8, 8, 8)):
        gate = Gate(experts=64, top_k=k, groups=groups, groups_per_token=keep)
        for concentration in (0.1, 1.0, 50.0):
            shares = generator.dirichlet(np.full(64, concentration))
            found = choose(name, gate, shares, 500, generator=generator)
            assert parts_reached(found, 64, groups).max() <= keep
            assert (assignments_per_token(found) == k).all()


@pytest.mark.parametrize(
    ("name", "gate", "message"),
    [
        ("softmax_topk", Gate(experts=4, top_k=5), "top_k 5 must lie between 1 and the 4"),
        ("switch_top1", Gate(experts=8, top_k=2), "top_k is 1 here"),
        ("deepseek_v2", Gate(experts=8, top_k=2, groups=3), "3 equal groups"),
        ("deepseek_v3", Gate(experts=8, top_k=3, groups=4), "1 groups hold fewer than 3"),
        ("deepseek_v3", Gate(experts=8, bias=(0.1,)), "1 biases for 8 experts"),
        ("hierarchical", Gate(experts=8), "levels are missing"),
        ("hierarchical", Gate(experts=8, levels=(Level(fanout=4, limit=1),)), "multiply to 4"),
        ("mtf_v2", Gate(experts=8, top_k=3, levels=(Level(fanout=8, limit=2),)), "two levels"),
        ("softmax_topk", Gate(experts=8, sharpness=0.0), "sharpness must be positive"),
        ("softmax_topk", Gate(experts=4), "8 shares for 4 experts"),
        ("softmax_top", Gate(experts=8), "Did you mean 'softmax_topk'"),
    ],
)
def test_a_gate_that_does_not_fit_is_refused(name: str, gate: Gate, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        _choose(name, gate)
