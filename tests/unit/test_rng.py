"""Random streams: named, reproducible, independent of each other."""

import numpy as np

from moesim import rng


def test_a_stream_depends_on_seed_and_name_only() -> None:
    first = rng.stream(1, "a").random(100)
    rng.stream(1, "b").random(7)  # another stream, drawn from in between
    assert np.array_equal(first, rng.stream(1, "a").random(100))
    assert not np.array_equal(first, rng.stream(2, "a").random(100))
    assert not np.array_equal(first, rng.stream(1, "b").random(100))


def test_draws_in_turn_leave_each_stream_as_it_is_alone() -> None:
    alone = rng.stream(5, "layer 1").random(50)
    one, other = rng.stream(5, "layer 1"), rng.stream(5, "layer 2")
    mixed = []
    for _ in range(50):
        mixed.append(float(one.random()))
        other.random(3)
    assert mixed == list(alone)


def test_streams_are_uncorrelated() -> None:
    """The correlation of 20 x 20,000 numbers stays within four standard errors of zero."""
    draws = np.stack([rng.stream(0, f"layer {i}").random(20_000) for i in range(20)])
    correlation = np.corrcoef(draws) - np.eye(20)
    assert float(np.abs(correlation).max()) < 4 / 20_000**0.5


def test_names_do_not_run_together() -> None:
    # seed 1 with "1/x" and seed 11 with "x" must not meet
    assert rng.stream(1, "1/x").random() != rng.stream(11, "x").random()
