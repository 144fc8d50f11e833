"""Slots per expert as the cited code bases compute them, worked out by hand."""

import math
from random import Random

import pytest

from moesim.moe.capacity import FORMULAS, CapacityRule, slots


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

    Tutel first rounds tokens / experts up, so it may be above by the factor.
    """
    random = Random(1)
    for _ in range(500):
        tokens, experts = random.randint(1, 10_000), random.randint(1, 256)
        factor = random.choice([0.5, 1.0, 1.25, 1.5, 2.0])
        exact = factor * tokens / experts
        for name, formula in FORMULAS.items():
            found = formula(tokens, experts, 1, factor)
            exact_here = min(float(tokens), exact) if name == "switch" else exact
            assert abs(found - exact_here) <= 1 + (factor if name == "tutel" else 0)


def test_megatron_rounds_as_the_cited_code_does() -> None:
    # moe_utils.get_capacity: math.ceil((num_tokens / num_experts) * capacity_factor), called with
    # num_tokens = tokens * k: 1000 / 10 * 1.1 = 110.00000000000001, so 111 slots
    assert math.ceil((1000 / 10) * 1.1) == 111
    assert FORMULAS["megatron"](1000, 10, 1, 1.1) == 111
