"""Experts in other shapes: what splitting and sharing leave alone, and what they change."""

from dataclasses import replace

import pytest

from moesim.errors import ModelError
from moesim.moe.gating.block import (
    Block,
    active_width,
    copies,
    fine_grained,
    isolate_shared,
    rows_per_expert,
    stored_width,
)

MIXTRAL = Block(experts=8, top_k=2, width=14336)


@pytest.mark.parametrize("pieces", [1, 2, 4, 8])
def test_splitting_keeps_work_parameters_and_rows(pieces: int) -> None:
    fine = fine_grained(MIXTRAL, pieces)
    assert (fine.experts, fine.top_k, fine.width) == (8 * pieces, 2 * pieces, 14336 // pieces)
    assert active_width(fine) == active_width(MIXTRAL) == 28672
    assert stored_width(fine) == stored_width(MIXTRAL)
    assert rows_per_expert(fine, 4096) == rows_per_expert(MIXTRAL, 4096) == 1024
    # relative block padding E * block / (2 k T) stays too
    padding = [block.experts * 128 / (2 * block.top_k * 4096) for block in (fine, MIXTRAL)]
    assert padding[0] == padding[1]


def test_splitting_raises_the_fan_out_until_all_ranks_are_reached() -> None:
    straight = [copies(fine_grained(MIXTRAL, m), 8, deduplicated=False) for m in (1, 2, 4)]
    assert straight == [2.0, 4.0, 8.0]  # m-fold
    once = [copies(fine_grained(MIXTRAL, m), 8, deduplicated=True) for m in (1, 2, 4, 32)]
    # 2 of 8; then 8 (1 - C(14, 4) / C(16, 4)) = 8 (1 - 1001 / 1820) = 3.6; below the 8 ranks
    assert once[:2] == pytest.approx([2.0, 3.6])
    assert once == sorted(once)
    assert once[3] == pytest.approx(8.0, abs=1e-3)


def test_shared_experts_are_dense_work_without_dispatch() -> None:
    """DeepSeekMoE 16B: 66 experts of which 8 are used, two of them shared: 6 of 64 routed."""
    made = isolate_shared(Block(experts=66, top_k=8, width=1408), 2)
    assert (made.experts, made.top_k, made.shared) == (64, 6, 2)
    assert active_width(made) == 8 * 1408
    assert stored_width(made) == 66 * 1408
    assert copies(made, 64, deduplicated=False) == 6.0
    assert rows_per_expert(made, 6400) == 600.0


def test_a_dense_network_beside_adds_work_and_no_copies() -> None:
    # Arctic: top-2 of 128 beside a dense FFN
    plain = Block(experts=128, top_k=2, width=4864)
    made = replace(plain, dense_width=7168)
    assert active_width(made) - active_width(plain) == 7168
    assert stored_width(made) - stored_width(plain) == 7168
    assert copies(made, 8, deduplicated=True) == copies(plain, 8, deduplicated=True)
    assert fine_grained(made, 2).dense_width == 7168


def test_what_does_not_divide_is_refused() -> None:
    with pytest.raises(ModelError, match="14336 does not split into 3"):
        fine_grained(MIXTRAL, 3)
    with pytest.raises(ModelError, match="leave none of 2"):
        isolate_shared(MIXTRAL, 2)
