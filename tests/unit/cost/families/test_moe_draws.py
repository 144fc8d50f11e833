"""Rows of the busiest rank under a power law: sums, left-over rows, and placements."""

import numpy as np
import pytest

from moesim.cost.families.moe_draws import FIRST, MOST, SPREAD, Draw, busiest_rows


def draw(
    tokens: float, ranks: float, *, exponent: float = 1.2, left_over: str = SPREAD, slots: float = 0
) -> Draw:
    return Draw(
        tokens=tokens, top_k=8, experts=256, ranks=ranks, exponent=exponent, left_over=left_over,
        slots=slots,
    )  # fmt: skip


@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.01, 1.2])
@pytest.mark.parametrize("tokens", [1, 4, 100, 4096])
def test_rows_are_whole_and_keep_their_sum(tokens: int, exponent: float) -> None:
    rows = busiest_rows(draw(tokens, 1, exponent=exponent))
    assert np.array_equal(rows, busiest_rows(draw(tokens, 1, exponent=exponent)))
    assert np.all(rows >= 0) and np.all(rows <= tokens) and np.all(rows == np.round(rows))
    assert rows.sum(axis=1) == pytest.approx(np.full(len(rows), tokens * 8), rel=0.02)


@pytest.mark.parametrize(
    ("ranks", "evenly", "crowded"), [(1, 8, 8), (2, 4, 8), (8, 1, 8), (32, 1, 8), (64, 1, 4)]
)
def test_where_rows_go_that_rounding_leaves_over(ranks: int, evenly: int, crowded: int) -> None:
    # 8 choices among 256 experts: the most popular one is wanted for
    # 8 * 2 / (256 * 0.26) = 0.24 rows, and all 8 are left over
    for rule, expected in ((SPREAD, evenly), (FIRST, crowded), (MOST, crowded)):
        rows = busiest_rows(draw(1, ranks, left_over=rule))
        assert np.all((rows > 0).sum(axis=1) == expected) and np.all(rows.max(axis=1) == 1)


def test_few_choices_reach_different_experts() -> None:
    # 32 choices: the most popular expert is wanted for 32 * 2 / (256 * 0.26) = 0.96 rows
    for rule in (SPREAD, FIRST):
        assert np.all((busiest_rows(draw(4, 1, left_over=rule)) > 0).sum(axis=1) == 32)
    # half a row and more, of 32 / (256 * 0.26) for each of popularity 1, for popularity above 1.04:
    # (1.04^-0.2 - 2^-0.2) / (0.01^-0.2 - 2^-0.2) = 0.074 of 256 experts, 19; they get the rest too
    most = (busiest_rows(draw(4, 1, left_over=MOST)) > 0).sum(axis=1)
    assert most.mean() == pytest.approx(19, rel=0.1)


def test_a_token_chooses_an_expert_once() -> None:
    few = Draw(tokens=4, top_k=2, experts=8, ranks=8, exponent=1.2)
    assert busiest_rows(few).max() == 4


def test_the_busiest_rank_has_most_rows() -> None:
    of_all = busiest_rows(draw(4096, 1, exponent=1.01))
    busiest = busiest_rows(draw(4096, 32, exponent=1.01))
    assert busiest.shape == (len(of_all), 8)
    most = of_all.reshape(-1, 32, 8).sum(axis=2).max(axis=1)
    assert np.array_equal(busiest.sum(axis=1), most)
    assert busiest.sum(axis=1).mean() > 1.5 * 4096 * 8 / 32


def test_placed_experts_load_ranks_more_evenly() -> None:
    contiguous, packed, copied = (
        busiest_rows(draw(4096, 32, slots=slots)).sum(axis=1) for slots in (0, 256, 288)
    )
    assert np.all(packed <= contiguous) and np.all(copied <= packed * 1.001)
    # 32 copies all but bring every rank to its share, 4096 * 8 / 32 rows
    assert copied.mean() == pytest.approx(1024, rel=0.05) and packed.mean() > 1.3 * 1024


def test_one_expert_a_rank_cannot_be_placed_better() -> None:
    most = busiest_rows(draw(4096, 1)).max(axis=1)
    assert np.array_equal(busiest_rows(draw(4096, 256, slots=256))[:, 0], most)
