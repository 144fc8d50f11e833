"""Who finds a slot: against routers that place tokens one by one, and by hand."""

from random import Random

import numpy as np
import pytest

from moesim.moe.capacity import CapacityRule, slots
from moesim.moe.choices import Choices, counts
from moesim.moe.groups import Tokens, group_tokens
from moesim.moe.habits import by_choice, own_policy
from moesim.moe.keeping import (
    POLICIES,
    Mask,
    keep,
    keep_by_rule,
    keep_in_budget,
    spared_tokens,
)
from moesim.moe.kept_rows import rows_after
from tests.unit.moe.one_by_one import ROUTERS, Case, Kept

CASES = 200
MOST_CHOICES = {"switch": 2, "gshard": 2, "fairseq": 2}
"""How many choices the code base knows."""


def _case(formula: str, random: Random, seed: int) -> Case:
    top_k = random.randint(1, MOST_CHOICES.get(formula, 4))
    experts = random.randint(top_k, 8)
    tokens = random.randint(1, 30)
    factor = random.choice([0.25, 0.5, 0.7, 1.0, 1.1, 1.25, 2.0])
    if formula == "tutel":
        factor = random.choice([factor, 0.0, -factor])
    if formula == "fairseq" and top_k == 2:
        factor = 1.0  # its top-2 gate takes none
    popular = [random.random() ** 2 for _ in range(experts)]
    wants = [_choose(popular, top_k, random) for _ in range(tokens)]
    weights = [sorted((random.random() for _ in range(top_k)), reverse=True) for _ in wants]
    lots = np.random.default_rng(seed).random((tokens, top_k)).tolist()
    case = Case(experts, top_k, factor, wants, weights, lots)
    if random.random() < 0.3:  # routers that do not always send later choices
        _withdraw(case, formula, random)
    case.padding = {token for token in range(tokens) if random.random() < 0.2}
    return case


def _choose(popular: list[float], top_k: int, random: Random) -> list[int]:
    scores = [(random.random() * share, expert) for expert, share in enumerate(popular)]
    return [expert for _, expert in sorted(scores, reverse=True)[:top_k]]


def _withdraw(case: Case, formula: str, random: Random) -> None:
    for token in range(case.tokens):
        for choice in range(1, case.top_k):
            if random.random() < 0.3:
                if formula == "gshard":
                    case.declined.add((token, choice))
                else:
                    case.wants[token][choice] = -1


def _choices(case: Case) -> Choices:
    return Choices(np.array(case.wants, dtype=np.int64), np.array(case.weights))


def _mask(case: Case, pairs: Kept) -> Mask:
    found = np.zeros((case.tokens, case.top_k), dtype=np.bool_)
    for at in pairs:
        found[at] = True
    return found


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("formula", sorted(set(ROUTERS) - {"deepseek_v2"}))
def test_rule_equals_the_router_that_places_tokens_one_by_one(formula: str, policy: str) -> None:
    random, dropping = Random(f"{formula} {policy}"), 0
    for seed in range(CASES):
        case = _case(formula, random, seed)
        choices = _choices(case)
        rule = CapacityRule(formula=formula, factor=case.factor, policy=policy)
        routed = counts(choices, case.experts, 1)
        limit = slots(rule, case.tokens, case.experts, case.top_k, fullest=int(routed.max()))
        expected_slots, expected = ROUTERS[formula](case, policy)
        assert limit == expected_slots
        padding = np.isin(np.arange(case.tokens), list(case.padding))
        found = keep_by_rule(
            rule, choices, limit, np.random.default_rng(seed),
            padding=padding, declined=_mask(case, case.declined),
        )  # fmt: skip
        np.testing.assert_array_equal(found, _mask(case, expected))
        dropping += len(expected) < routed.sum()
    assert dropping > CASES / 4  # else the cases say little


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("formula", sorted(set(ROUTERS) - {"deepseek_v2"}))
def test_counts_keep_what_tokens_keep(formula: str, policy: str) -> None:
    """Each expert keeps as many rows as the router that places tokens one by one."""
    random = Random(f"counts {formula} {policy}")
    for seed in range(CASES):
        case = _case(formula, random, seed)
        case.padding, case.declined = set(), set()
        limit, expected = ROUTERS[formula](case, policy)
        found = rows_after(counts(_choices(case), case.experts, 1), limit)
        by_expert = [case.wants[token][choice] for token, choice in expected]
        assert found.sum(axis=0).tolist() == [by_expert.count(e) for e in range(case.experts)]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_device_budget_equals_dropping_the_last_served_again_and_again(policy: str) -> None:
    """By probs, the policy of the source, the last served have the lowest affinity."""
    random, dropping = Random(5), 0
    for seed in range(CASES):
        case = _case("deepseek_v2", random, seed)
        case.devices = random.choice([d for d in (1, 2, 4) if case.experts % d == 0])
        case.spared = {token for token in range(case.tokens) if random.random() < 0.1}
        rule = CapacityRule(formula="deepseek_v2", factor=case.factor)
        budget = slots(rule, case.tokens, case.devices, case.top_k)
        expected_budget, expected = ROUTERS["deepseek_v2"](case, policy)
        assert budget == expected_budget
        where = np.arange(case.experts) * case.devices // case.experts
        spared = np.isin(np.arange(case.tokens), list(case.spared))
        found = keep_in_budget(
            _choices(case), where, budget, np.random.default_rng(seed),
            policy=policy, spared=spared,
        )  # fmt: skip
        np.testing.assert_array_equal(found, _mask(case, expected))
        dropping += len(expected) < sum(experts >= 0 for row in case.wants for experts in row)
    assert dropping > CASES / 4


@pytest.mark.parametrize("scope", ["sequence", "rank", "group", "world"])
@pytest.mark.parametrize("formula", sorted(set(ROUTERS) - {"deepseek_v2"}))
def test_each_routing_group_is_a_router_of_its_own(formula: str, scope: str) -> None:
    """Tokens of all ranks in order, cut into groups: slots and who finds one, group by group."""
    random = Random(f"{formula} {scope}")
    for seed in range(CASES):
        ranks, sequences, length = random.randint(1, 3), random.randint(1, 3), random.randint(2, 6)
        stated = random.randint(1, 8)
        rule = CapacityRule(
            formula=formula, factor=1.0, scope=scope, group_tokens=stated, policy="position"
        )
        tokens = Tokens(sequence=length, rank=length * sequences, ep_ranks=ranks)
        whole = _sized_case(formula, random, seed, length * sequences * ranks)
        size = {
            "sequence": length, "rank": length * sequences, "group": min(stated, whole.tokens),
            "world": whole.tokens,
        }[scope]  # fmt: skip
        assert group_tokens(rule, tokens) == size
        for start in range(0, whole.tokens, size):
            case = _part(whole, start, start + size)
            limit, expected = ROUTERS[formula](case, "position")
            routed = counts(_choices(case), case.experts, 1)
            found_slots = slots(
                rule, case.tokens, case.experts, case.top_k, fullest=int(routed.max())
            )
            assert found_slots == limit
            kept = keep_by_rule(rule, _choices(case), limit)
            np.testing.assert_array_equal(kept, _mask(case, expected))


def _sized_case(formula: str, random: Random, seed: int, tokens: int) -> Case:
    top_k = random.randint(1, MOST_CHOICES.get(formula, 4))
    experts = random.randint(top_k, 8)
    popular = [random.random() ** 2 for _ in range(experts)]
    wants = [_choose(popular, top_k, random) for _ in range(tokens)]
    weights = [sorted((random.random() for _ in range(top_k)), reverse=True) for _ in wants]
    lots = np.random.default_rng(seed).random((tokens, top_k)).tolist()
    return Case(experts, top_k, 1.0, wants, weights, lots)


def _part(case: Case, start: int, end: int) -> Case:
    cut = slice(start, end)
    return Case(
        case.experts, case.top_k, case.factor, case.wants[cut], case.weights[cut], case.lots[cut]
    )


def test_second_choices_of_early_tokens_wait_for_first_choices_of_late_ones() -> None:
    # tokens 0 and 1 want A then B, token 2 wants B then A; two slots each
    choices = Choices(np.array([[0, 1], [0, 1], [1, 0]]), np.full((3, 2), 0.5))
    first = keep(choices, 2, by_choice=True)
    # B: token 2 (first choice), then token 0; A: tokens 0 and 1, none left for token 2
    assert first.tolist() == [[True, True], [True, False], [True, False]]
    in_order = keep(choices, 2)  # B: tokens 0 and 1, none left for the first choice of token 2
    assert in_order.tolist() == [[True, True], [True, True], [False, False]]


def test_large_weights_stay_by_probs_and_early_tokens_by_position() -> None:
    choices = Choices(np.array([[0], [0], [0]]), np.array([[0.2], [0.9], [0.5]]))
    assert keep(choices, 1, "position").ravel().tolist() == [True, False, False]
    assert keep(choices, 1, "probs").ravel().tolist() == [False, True, False]
    assert keep(choices, 2, "probs").ravel().tolist() == [False, True, True]


def test_random_policy_favours_nobody_and_needs_a_generator() -> None:
    choices = Choices(np.zeros((4, 1), dtype=np.int64), np.ones((4, 1)))
    generator = np.random.default_rng(0)
    share = np.mean([keep(choices, 2, "random", generator).ravel() for _ in range(4000)], axis=0)
    error = (0.25 / 4000) ** 0.5  # each stays in half of the draws
    assert np.all(abs(share - 0.5) < 4 * error)
    with pytest.raises(ValueError, match="generator"):
        keep(choices, 2, "random")


def test_choice_that_a_coin_declined_holds_its_place_only_where_it_is_named() -> None:
    # GShard: the declined second choice of token 0 uses up the only slot of expert 1
    both = np.array([[0, 1], [0, 1]])
    declined = np.array([[False, True], [False, False]])
    choices = Choices(both, np.full((2, 2), 0.5))
    held = keep(choices, 1, by_choice=True, declined=declined)
    assert held.tolist() == [[True, False], [False, False]]
    freed = Choices(np.where(declined, -1, both), choices.weights)
    assert keep(freed, 1, by_choice=True).tolist() == [[True, False], [False, True]]


def test_padding_tokens_take_slots_only_where_they_are_routed() -> None:
    choices = Choices(np.zeros((3, 1), dtype=np.int64), np.ones((3, 1)))
    padding = np.array([True, False, False])
    for formula, expected in (("flaxformer", [True, True, False]), ("switch", [False, True, True])):
        found = keep_by_rule(CapacityRule(formula=formula), choices, 2, padding=padding)
        assert found.ravel().tolist() == expected
    said = CapacityRule(formula="flaxformer", padding_tokens_occupy_capacity=False)
    found = keep_by_rule(said, choices, 2, padding=padding)
    assert found.ravel().tolist() == [False, True, True]


def test_order_and_policy_of_the_code_bases() -> None:
    # DeepSpeed: top1gating random token selection, top2gating cumsum, topkgating per expert
    assert [own_policy("deepspeed", k) for k in (1, 2, 3, 8)] == [
        "random", "position", "probs", "probs",
    ]  # fmt: skip
    assert [by_choice("deepspeed", k) for k in (2, 3)] == [True, False]
    assert own_policy("megatron", 2) == "probs"
    assert [name for name in sorted(ROUTERS) if by_choice(name, 2)] == [
        "deepspeed", "fairseq", "flaxformer", "gshard", "switch", "tutel",
    ]  # fmt: skip


def test_tenth_of_the_sequences_is_spared_whole() -> None:
    found = spared_tokens(1000, 20, 0.1, np.random.default_rng(1))
    by_sequence = found.reshape(50, 20)
    assert by_sequence.all(axis=1).sum() == 5
    assert by_sequence.any(axis=1).sum() == 5
