"""Slots per expert as the cited code bases compute them, worked out by hand."""

import math
from random import Random

import pytest

from moesim.moe.capacity import FORMULAS, MODES, CapacityRule, pads, slots
from moesim.moe.habits import HABITS


@pytest.mark.parametrize(
    ("formula", "size", "expected"),
    [  # size: tokens, experts, top_k, factor
        # Megatron-Core: ceil(tokens * k / experts * factor)
        ("megatron", (4096, 8, 2, 1.0), 1024),
        ("megatron", (4096, 8, 2, 1.25), 1280),
        ("megatron", (100, 8, 1, 1.0), 13),  # 12.5
        ("megatron", (4096, 160, 6, 1.0), 154),  # 153.6
        # DeepSpeed: ceil(tokens / experts * factor * k)
        ("deepspeed", (100, 8, 2, 1.0), 25),
        ("deepspeed", (100, 8, 1, 1.25), 16),  # 15.625
        # Tutel: k * int(factor * ceil(tokens / experts))
        ("tutel", (100, 8, 2, 1.0), 26),  # 2 * 13
        ("tutel", (100, 8, 2, 1.25), 32),  # 2 * int(16.25)
        ("tutel", (4096, 8, 2, 1.0), 1024),
        # MegaBlocks: int(factor * k * tokens / experts)
        ("megablocks", (100, 8, 1, 1.0), 12),
        ("megablocks", (100, 8, 2, 1.25), 31),  # 31.25
        # Switch / mesh-tensorflow: min(tokens, int(tokens * factor / experts)); k does not count
        ("switch", (100, 8, 1, 1.25), 15),
        ("switch", (100, 8, 2, 1.25), 15),
        ("switch", (100, 8, 1, 64.0), 100),
        # flaxformer: round(factor * tokens / experts), Python's rounding of halves to even
        ("flaxformer", (100, 8, 1, 1.0), 12),
        ("flaxformer", (100, 8, 1, 1.25), 16),  # 15.625
        ("flaxformer", (108, 8, 2, 1.0), 14),  # 13.5
        ("flaxformer", (100, 8, 2, 1.0), 12),  # 12.5 goes to the even 12
        ("flaxformer", (4, 8, 1, 1.0), 0),  # 0.5
        # DeepSpeed multiplies in single precision: 100 * 1.1 is 110.0 there; Megatron above it
        ("deepspeed", (1000, 10, 1, 1.1), 110),
        ("deepspeed", (100, 8, 6, 1.0), 75),
        ("deepspeed", (100, 3, 1, 1.5), 50),  # 33.33 * 1.5
        # Tutel's sign of the factor is for `slots`
        ("tutel", (100, 8, 2, -1.25), 32),
        ("tutel", (100, 8, 2, 0.0), 0),
        ("tutel", (7, 8, 3, 1.9), 3),  # 3 * int(1.9)
        # MegaBlocks divides first: 0.7 * (3 * 10 / 3) = 7.0, but 0.7 * 3 * 10 / 3 = 6.999...
        ("megablocks", (10, 3, 3, 0.7), 7),
        ("megablocks", (10, 64, 1, 1.0), 0),
        # mesh-tensorflow: int(1.25 * 8 / 4), then at most the group
        ("switch", (8, 4, 2, 1.25), 2),
        ("switch", (3, 2, 1, 2.0), 3),
        # GShard: at most 2 S / E
        ("gshard", (100, 8, 2, 1.0), 25),
        ("gshard", (101, 8, 2, 1.0), 25),  # 25.25
        ("gshard", (103, 8, 2, 1.0), 25),  # 25.75
        # fairseq: top-1 int(factor * ceil(T / E)), top-2 2 * ceil(T / E)
        ("fairseq", (100, 8, 1, 1.25), 16),  # int(16.25)
        ("fairseq", (100, 8, 2, 1.0), 26),
        ("fairseq", (4096, 128, 2, 1.0), 64),
        # DeepSeek-V2: eight devices, six choices, the mean load
        ("deepseek_v2", (4096, 8, 6, 1.0), 3072),
        ("deepseek_v2", (101, 8, 6, 1.0), 75),  # 75.75
    ],
)
def test_hand_values(formula: str, size: tuple[int, int, int, float], expected: int) -> None:
    tokens, experts, top_k, factor = size
    assert FORMULAS[formula](tokens, experts, top_k, factor) == expected


def test_smallest_number_of_slots() -> None:
    """Released Switch-C: groups of 2048, 2048 experts, factor 1, minimum 2 (t5x gin files)."""
    rule = CapacityRule(factor=1.0, formula="flaxformer", min_slots=2)
    assert slots(rule, 2048, 2048, 1) == 2
    assert slots(CapacityRule(factor=1.0, formula="switch", min_slots=4), 1024, 2048, 1) == 4
    assert slots(CapacityRule(factor=1.0, min_slots=0, formula="switch"), 10, 20, 1) == 0


def test_formulas_differ_by_rounding_only() -> None:
    """With k = 1 all rules are factor * tokens / experts, rounded to a whole number.

    Tutel and fairseq first round tokens / experts up, so they may be above by the factor.
    """
    random = Random(1)
    for _ in range(500):
        tokens, experts = random.randint(1, 10_000), random.randint(1, 256)
        factor = random.choice([0.5, 1.0, 1.25, 1.5, 2.0])
        exact = factor * tokens / experts
        for name, formula in FORMULAS.items():
            found = formula(tokens, experts, 1, factor)
            exact_here = min(float(tokens), exact) if name == "switch" else exact
            assert abs(found - exact_here) <= 1 + (factor if name in ("tutel", "fairseq") else 0)


def test_megatron_rounds_as_the_cited_code_does() -> None:
    # moe_utils.get_capacity: math.ceil((num_tokens / num_experts) * capacity_factor), called with
    # num_tokens = tokens * k: 1000 / 10 * 1.1 = 110.00000000000001, so 111 slots
    assert math.ceil((1000 / 10) * 1.1) == 111
    assert FORMULAS["megatron"](1000, 10, 1, 1.1) == 111


def test_minimum_is_the_code_bases_own_unless_the_rule_states_one() -> None:
    # 64 tokens, 64 experts: one slot by formula; flaxformer, mesh-tensorflow and DeepSpeed have 4
    found = {name: slots(CapacityRule(formula=name), 64, 64, 1) for name in FORMULAS}
    four = {"flaxformer", "switch", "deepspeed"}
    assert found == {name: 4 if name in four else 1 for name in FORMULAS}
    for name in FORMULAS:
        assert slots(CapacityRule(formula=name, min_slots=2), 64, 64, 1) == 2
    assert set(HABITS) == set(FORMULAS)


def test_tutel_follows_the_load_at_factor_zero_and_is_bounded_by_it_below() -> None:
    # fast_dispatch.py: cf = 0: max load; cf < 0: min(k * int(-cf * ceil(T / E)), max load)
    zero, below = (CapacityRule(formula="tutel", factor=factor) for factor in (0.0, -1.25))
    assert slots(zero, 100, 8, 2, fullest=41) == 41
    assert slots(below, 100, 8, 2, fullest=41) == 32
    assert slots(below, 100, 8, 2, fullest=29) == 29
    aligned = CapacityRule(formula="tutel", factor=0.0, alignment=16)
    assert slots(aligned, 100, 8, 2, fullest=41) == 48
    assert slots(aligned, 100, 8, 2, fullest=48) == 48
    plain = CapacityRule(formula="tutel", factor=1.25, alignment=8)
    assert slots(plain, 100, 8, 2, fullest=99) == 32  # 32 is a multiple of 8 already
    assert slots(CapacityRule(formula="tutel", factor=1.0, alignment=8), 100, 8, 2) == 32  # 26


def test_megablocks_follows_the_load_where_its_formula_gives_nothing() -> None:
    # moe.py: `if expert_capacity == 0: expert_capacity = max(tokens_per_expert)`
    rule = CapacityRule(formula="megablocks", factor=0.0)
    assert slots(rule, 100, 8, 2, fullest=41) == 41
    assert slots(CapacityRule(formula="megablocks", factor=0.5), 10, 64, 1, fullest=3) == 3
    assert slots(CapacityRule(formula="megablocks", factor=1.0), 128, 64, 1, fullest=9) == 2


def test_modes() -> None:
    assert set(MODES) == {"factor", "absolute", "fraction", "none"}
    assert slots(CapacityRule(mode="absolute", absolute=17), 100, 8, 2) == 17
    assert slots(CapacityRule(mode="absolute", absolute=3, min_slots=5), 100, 8, 2) == 5
    # fairseq at evaluation: math.ceil(moe_eval_capacity_token_fraction * num_tokens)
    assert slots(CapacityRule(mode="fraction", fraction=0.25, formula="fairseq"), 101, 8, 2) == 26
    assert slots(CapacityRule(mode="fraction", fraction=1.0, formula="fairseq"), 101, 8, 2) == 101
    floor = CapacityRule(mode="fraction", fraction=0.25, rounding="floor")
    assert slots(floor, 101, 8, 2) == 25
    assert slots(CapacityRule(mode="none"), 100, 8, 2) == 100
    assert slots(CapacityRule(mode="none"), 100, 8, 2, fullest=41) == 41


def test_whether_k_counts_may_be_stated() -> None:
    # 1.25 * 100 / 8 = 15.625, twice that 31.25
    for name in ("switch", "flaxformer"):
        assert slots(CapacityRule(formula=name, factor=1.25, counts_k=True), 100, 8, 2) == 31
    for name, one in (("megatron", 16), ("deepspeed", 16), ("megablocks", 15), ("gshard", 15)):
        assert slots(CapacityRule(formula=name, factor=1.25, counts_k=False), 100, 8, 2) == one
    # Tutel: int(1.25 * 13), not doubled
    assert slots(CapacityRule(formula="tutel", factor=1.25, counts_k=False), 100, 8, 2) == 16


def test_rounding_may_be_stated() -> None:
    # 1.0 * 2 * 106 / 8 = 26.5; switch without k 13.25
    for rounding, whole in (("floor", 26), ("ceil", 27), ("round", 26)):
        for name in ("megatron", "tutel", "gshard"):
            rule = CapacityRule(formula=name, rounding=rounding)
            assert slots(rule, 106, 8, 2) == whole
    assert slots(CapacityRule(formula="switch", rounding="ceil"), 106, 8, 2) == 14
    assert slots(CapacityRule(formula="switch", rounding="round", counts_k=True), 108, 8, 2) == 27


def test_padding_is_the_code_bases_own_unless_the_rule_says_otherwise() -> None:
    assert pads(CapacityRule(formula="switch"))
    assert not pads(CapacityRule(formula="megatron"))
    assert pads(CapacityRule(formula="megatron", pad=True))
    assert not pads(CapacityRule(formula="switch", pad=False))
