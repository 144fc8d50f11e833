"""Whose tokens a capacity counts over."""

import pytest

from moesim.moe.capacity import CapacityRule
from moesim.moe.groups import SCOPES, Tokens, competing_tokens, group_tokens, scope

TOKENS = Tokens(sequence=2048, rank=8192, ep_ranks=4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sequence", 2048), ("rank", 8192), ("group", 1024), ("world", 32_768)],
)
def test_scopes(name: str, expected: int) -> None:
    assert name in SCOPES
    assert group_tokens(CapacityRule(scope=name, group_tokens=1024), TOKENS) == expected


def test_scope_left_out_is_the_code_bases_own() -> None:
    assert group_tokens(CapacityRule(), TOKENS) == 8192
    assert group_tokens(CapacityRule(formula="megablocks"), TOKENS) == 32_768
    assert group_tokens(CapacityRule(formula="megablocks", group_tokens=512), TOKENS) == 512
    assert scope(CapacityRule(group_tokens=512)) == "group"
    # never more tokens than there are
    assert group_tokens(CapacityRule(group_tokens=10**6), TOKENS) == 32_768
    long = Tokens(sequence=10**6, rank=64, ep_ranks=2)
    assert group_tokens(CapacityRule(scope="sequence"), long) == 128


def test_padding_counts_for_the_slots_but_may_not_want_any() -> None:
    def rule(formula: str, occupies: bool | None = None) -> CapacityRule:
        return CapacityRule(
            formula=formula, padding_fraction=0.2, padding_tokens_occupy_capacity=occupies
        )

    assert competing_tokens(rule("switch"), 1000) == 800
    assert competing_tokens(rule("megatron"), 1000) == 1000
    assert competing_tokens(rule("megatron", occupies=False), 1000) == 800
    assert competing_tokens(rule("switch", occupies=True), 1000) == 1000
    assert competing_tokens(CapacityRule(formula="switch"), 1000) == 1000
