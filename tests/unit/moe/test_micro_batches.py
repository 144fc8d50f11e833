"""Loads of micro-batches: one popularity, tokens and drops of their own."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim import rng
from moesim.moe.assignment import Router, assign, load_of
from moesim.moe.capacity import CapacityRule
from moesim.moe.loads import LoadLaw
from moesim.moe.micro_batches import MOST_COUNTS, affordable, draw_apart, vary

SKEWED = LoadLaw(law="lognormal", cv=1.0)


def _router(**changes: Any) -> Router:
    router = Router(tokens=4000, group_tokens=500, experts=16, top_k=2, ranks=8, law=SKEWED)
    return replace(router, **changes)


def test_all_micro_batches_have_the_popularity_of_the_step() -> None:
    """Their rank loads scatter by counting only: at most 5 standard deviations off the mean."""
    found = vary(_router(), 200, rng.stream(1, "layer"))
    mean = found.rank_rows.mean(axis=0)
    assert (np.abs(found.rank_rows - mean) <= 5 * np.sqrt(mean) + 1).all()
    assert mean.max() > 1.5 * mean.mean()
    assert len(np.unique(found.rank_rows, axis=0)) == 200


def test_the_popularity_is_that_of_a_draw_per_step() -> None:
    """Same stream, same shares: what a step draws lies among what its micro-batches draw."""
    once = np.array(assign(_router(), rng.stream(7, "layer")).rank_rows)
    many = vary(_router(), 100, rng.stream(7, "layer")).rank_rows
    assert (np.abs(once - many.mean(axis=0)) <= 5 * np.sqrt(once) + 1).all()


def test_the_same_stream_gives_the_same_loads() -> None:
    one, two = (vary(_router(), 8, rng.stream(3, "layer")) for _ in range(2))
    other = vary(_router(), 8, rng.stream(4, "layer"))
    assert (one.rank_rows == two.rank_rows).all()
    assert one.high == two.high
    assert (one.rank_rows != other.rank_rows).any()


def test_knots_are_the_most_and_the_least_even_micro_batch() -> None:
    router = _router()
    found = vary(router, 20, rng.stream(5, "layer"))
    drawn, placement = draw_apart(router, 20, rng.stream(5, "layer"))
    loads = [load_of(router, one, placement) for one in drawn]
    heights = [load.rank_imbalance for load in loads]
    assert found.first == loads[0]
    assert found.low == loads[int(np.argmin(heights))]
    assert found.high == loads[int(np.argmax(heights))]
    assert found.heights.min() == 0.0
    assert found.heights.max() == 1.0
    assert found.imbalances == pytest.approx(heights)
    assert [tuple(rows) for rows in found.rank_rows.tolist()] == [one.rank_rows for one in loads]


def test_a_capacity_counts_over_each_micro_batch() -> None:
    """One group of 4,000 tokens, ceil(4000 * 2 / 16 * 1.0) = 500 slots: min(n, 500) stay in each
    micro-batch; over all 20 together, with 10,000 slots, fewer would go."""
    router = _router(
        group_tokens=4000, capacity=CapacityRule(factor=1.0), law=LoadLaw(law="uniform")
    )
    found = vary(router, 20, rng.stream(6, "layer"))
    drawn, _ = draw_apart(router, 20, rng.stream(6, "layer"))
    wanted = np.stack([one.routed for one in drawn])
    assert found.computed == int(np.minimum(wanted, 500).sum())
    assert found.routed == 20 * 4000 * 2 == found.computed + found.dropped
    together = int(np.minimum(wanted.sum(axis=0), 20 * 500).sum())
    assert found.dropped > found.routed - together


def test_groups_of_a_micro_batch_drop_apart() -> None:
    router = _router(capacity=CapacityRule(factor=1.0))
    found = vary(router, 4, rng.stream(6, "layer"))
    loads = [assign(router, rng.stream(6, f"step {n}")) for n in range(40)]
    share = np.mean([load.dropped / load.routed for load in loads])
    assert found.routed == found.computed + found.dropped
    assert 0.3 * share < found.dropped / found.routed < 3 * share


def test_what_cannot_be_drawn_is_seen_again_in_turn() -> None:
    """2^22 counts: of 16 experts in 2^16 layers 4 micro-batches."""
    router = _router()
    assert affordable(router, 10, 2**16) == 4 == MOST_COUNTS // (16 * 2**16)
    found = vary(router, 10, rng.stream(1, "layer"), layers=2**16)
    assert found.drawn == 4
    assert len(found.rank_rows) == 4
    assert found.imbalances[4:8].tolist() == found.imbalances[:4].tolist()
    assert found.routed == 10 * 4000 * 2
