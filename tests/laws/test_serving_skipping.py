"""L11: skipping from change to change gives the steps, times and choices of stepping singly."""

import pytest

from tests.laws.serving_runs import random_requests, random_world

Seen = tuple[object, ...]


def _seen(seed: int, *, one_by_one: bool) -> tuple[Seen, int, int, int]:
    """Return everything that must be alike, and how much was preempted, moved and found."""
    world, asked = random_world(seed), random_requests(seed)
    loop = world.loop(asked, one_by_one=one_by_one)
    world.run(loop)
    seen = (asked.arrival, asked.scheduled, asked.first, asked.finish, asked.preemptions,
            asked.cached, world.steps(), loop.rejected, loop.recomputed)  # fmt: skip
    return seen, sum(asked.preemptions), loop.recomputed, sum(asked.cached)


@pytest.mark.parametrize("part", range(10))
def test_skipping_changes_nothing(part: int) -> None:
    preempted = moved = found = 0
    for seed in range(50 * part, 50 * part + 50):
        ours, evicted, lost, cached = _seen(seed, one_by_one=False)
        assert ours == _seen(seed, one_by_one=True)[0], f"seed {seed}"
        preempted, moved, found = preempted + evicted, moved + lost, found + cached
    assert preempted and moved and found  # these cases are among them


@pytest.mark.parametrize("seed", [1777, 1959])
def test_a_step_that_takes_a_found_block_may_make_room(seed: int) -> None:
    """A request that waits needs less room for its first chunk once less of it is found."""
    assert _seen(seed, one_by_one=False) == _seen(seed, one_by_one=True)
