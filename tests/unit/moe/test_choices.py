"""Choices counted by source rank and expert, by hand."""

import numpy as np

from moesim.moe.choices import (
    Choices,
    assignments_per_token,
    counts,
    parts_reached,
    split_tokens,
)

# five tokens, two choices each, one without a second
CHOICES = Choices(
    np.array([[0, 3], [3, -1], [1, 2], [3, 0], [2, 3]]),
    np.array([[0.6, 0.4], [1.0, 0.0], [0.5, 0.5], [0.9, 0.1], [0.7, 0.3]]),
)


def test_counts_by_hand() -> None:
    # the first three tokens lie on rank 0, the last two on rank 1
    assert counts(CHOICES, 4, 2).tolist() == [[1, 1, 1, 2], [1, 0, 1, 2]]
    assert counts(CHOICES, 4, 1).tolist() == [[2, 1, 2, 4]]


def test_tokens_split_evenly_in_order() -> None:
    assert split_tokens(10, 4).tolist() == [3, 3, 2, 2]
    assert split_tokens(2, 4).tolist() == [1, 1, 0, 0]


def test_more_ranks_than_tokens() -> None:
    found = counts(CHOICES, 4, 7)
    assert found.sum(axis=1).tolist() == [2, 1, 2, 2, 2, 0, 0]


def test_assignments_and_parts_by_hand() -> None:
    assert assignments_per_token(CHOICES).tolist() == [2, 1, 2, 2, 2]
    # experts 0 and 1 on part 0, 2 and 3 on part 1
    assert parts_reached(CHOICES, 4, 2).tolist() == [2, 1, 2, 2, 1]
