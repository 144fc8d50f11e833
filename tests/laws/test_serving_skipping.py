"""L11: skipping from change to change gives the steps, times and choices of stepping singly."""

import pytest

from tests.laws.serving_runs import random_requests, random_world


@pytest.mark.parametrize("part", range(10))
def test_skipping_changes_nothing(part: int) -> None:
    preempted = moved = found = 0
    for seed in range(50 * part, 50 * part + 50):
        seen = []
        for one_by_one in (False, True):
            world, asked = random_world(seed), random_requests(seed)
            loop = world.loop(asked, one_by_one=one_by_one)
            world.run(loop)
            columns = (asked.arrival, asked.scheduled, asked.first, asked.finish,
                       asked.preemptions, asked.cached)  # fmt: skip
            seen.append((columns, world.steps(), loop.rejected, loop.recomputed))
            preempted += sum(asked.preemptions)
            moved += loop.recomputed
            found += sum(asked.cached)
        assert seen[0] == seen[1], f"seed {seed}"
    assert preempted and moved and found  # these cases are among them
