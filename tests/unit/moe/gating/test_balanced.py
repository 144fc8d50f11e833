"""Loads that are flat by construction, and the assignment that makes them so."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped,unused-ignore]

from moesim.moe.choices import counts
from moesim.moe.gating.balanced import assign_balanced, tokens_taken
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.table import choose


@pytest.mark.parametrize(("tokens", "experts"), [(64, 8), (240, 16), (100, 7), (5, 8), (30, 1)])
def test_the_auction_finds_the_largest_sum(tokens: int, experts: int) -> None:
    """Against scipy's exact assignment with every slot a column of its own."""
    generator = np.random.default_rng(tokens)
    scores = generator.gumbel(size=(tokens, experts)) + generator.standard_normal(experts)
    room = tokens // experts + (np.arange(experts) < tokens % experts).astype(np.int64)
    found = assign_balanced(scores, room)
    assert np.bincount(found, minlength=experts).tolist() == room.tolist()
    slots = np.repeat(scores, room, axis=1)
    rows, columns = linear_sum_assignment(slots, maximize=True)
    largest = slots[rows, columns].sum()
    total = scores[np.arange(tokens), found].sum()
    assert largest - tokens * 1e-3 * scores.std() <= total <= largest + 1e-9


def test_the_auction_by_hand() -> None:
    # both tokens prefer expert 0; the first would lose more (5 against 1) by leaving it
    scores = np.array([[9.0, 4.0], [8.0, 7.0]])
    assert assign_balanced(scores, np.array([1, 1])).tolist() == [0, 1]
    # and without room on the first all go to the second
    assert assign_balanced(scores, np.array([0, 2])).tolist() == [1, 1]


@pytest.mark.parametrize("concentration", [0.1, 1.0, 100.0])
def test_base_gives_every_expert_the_same(concentration: float) -> None:
    generator = np.random.default_rng(2)
    shares = generator.dirichlet(np.full(16, concentration))
    found = choose("base", Gate(experts=16), shares, 512, generator=generator)
    assert counts(found, 16, 1).tolist() == [[32] * 16]
    rest = choose("base", Gate(experts=16), shares, 515, generator=generator)
    assert counts(rest, 16, 1).tolist() == [[33] * 3 + [32] * 13]


def test_experts_take_as_flaxformer_rounds() -> None:
    # int(round(CF * T / E)): halves to even, at most the tokens there are
    for factor, tokens, expected in ((1.0, 100, 12), (1.25, 100, 16), (1.0, 108, 14), (64, 100, 100)):  # fmt: skip  # noqa: E501
        assert tokens_taken(Gate(experts=8, capacity_factor=factor), tokens) == expected


def test_expert_choice_takes_nothing_from_too_few_tokens() -> None:
    found = choose(
        "expert_choice", Gate(experts=8), np.full(8, 1 / 8), 3, generator=np.random.default_rng(0)
    )
    assert counts(found, 8, 1).sum() == 0  # round(3 / 8) = 0


def test_expert_choice_tokens_get_none_to_many() -> None:
    gate = Gate(experts=64, capacity_factor=2.0)
    found = choose(
        "expert_choice", gate, np.full(64, 1 / 64), 4096, generator=np.random.default_rng(1)
    )
    assert counts(found, 64, 1).tolist() == [[128] * 64]
    used = (found.experts >= 0).sum(axis=1)
    assert used.mean() == 2.0
    assert used.max() > 2
