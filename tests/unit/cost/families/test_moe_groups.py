"""Rows of experts after limiting tokens to 4 of 8 groups: who gets the free choices."""

import numpy as np
import pytest

from moesim.cost.families.moe_draws import Draw, busiest_rows
from moesim.cost.families.moe_groups import even_grouped_rows, grouped_rows


def test_one_token_keeps_four_choices_and_fills_four_places() -> None:
    # 256 experts in groups of 32: offered 0, 32, 64, ..., 224; kept 0, 32, 64, 96; filled 1 to 4
    rows = even_grouped_rows(1, 256)
    assert list(np.flatnonzero(rows)) == [0, 1, 2, 3, 4, 32, 64, 96]


@pytest.mark.parametrize(("tokens", "read"), [(4, 17), (16, 64), (48, 128), (4096, 128)])
def test_half_the_experts_have_rows_and_the_first_four_most(tokens: int, read: int) -> None:
    rows = even_grouped_rows(tokens, 256)
    assert rows.sum() == tokens * 8 and np.all(rows[:4] == tokens)
    assert (rows > 0).sum() == read


def test_a_table_of_offers_gives_the_closed_form() -> None:
    # one token, offered one expert of each group
    offered = np.zeros(256)
    offered[::32] = 1.0
    assert np.array_equal(grouped_rows(offered, 1), even_grouped_rows(1, 256))


def test_choices_of_few_groups_stay_as_they_are() -> None:
    # 8 experts of two groups: each token is offered all of them, and keeps them
    offered = np.zeros(128)
    offered[:8] = 100.0
    assert np.array_equal(grouped_rows(offered, 100), offered)


def test_many_tokens_are_stood_for_by_some() -> None:
    offered = np.full(128, 16384 * 8 / 128)
    rows = grouped_rows(offered, 16384)
    # handed out in order: 16 experts at a time, one of each group for every token
    assert rows.sum() == pytest.approx(16384 * 8)
    assert np.all(rows[:4] == 16384) and np.all(rows[64:] == 0)


def test_grouping_keeps_the_choices_of_one_rank() -> None:
    draw = Draw(tokens=512, top_k=8, experts=256, ranks=1, exponent=1.2, grouped=True)
    rows = busiest_rows(draw)
    assert rows.sum(axis=1) == pytest.approx(np.full(len(rows), 512 * 8))
