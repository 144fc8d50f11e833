"""Every gap between tokens is counted, and skipping steps changes none of them."""

from random import Random

import numpy as np
import pytest

from moesim.cost.iteration import TabledTimes
from moesim.sim.serving.open_loop import serve
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import NEVER, Requests, requests
from moesim.sim.serving.rules import Batching, EngineRules
from moesim.study.serving.gaps import Gaps, gaps

REQUESTS = 150


def times() -> TabledTimes:
    """Made-up iterations whose decode attention has knots."""
    return TabledTimes(
        lambda n: ([0, 500 * n, 4000 * n, 10**6 * n],
                   [1e-3 + n * 1e-5, 1.3e-3 + n * 1e-5, 4e-3 + n * 1e-5, 0.1]),
        lambda tokens, sequences, everyone: 2e-3 + tokens * 1e-5,
        lambda tokens, past: tokens * 2e-6 + tokens * past * 1e-9,
    )  # fmt: skip


def served(seed: int, batching: Batching, *, one_by_one: bool) -> tuple[Requests, Gaps]:
    draw = Random(seed)
    asked = requests(
        [draw.randint(1, 900) for _ in range(REQUESTS)],
        [draw.randint(1, 300) for _ in range(REQUESTS)],
        sorted(5 * draw.random() for _ in range(REQUESTS)),
    )
    asked.logs = []
    rules = EngineRules(
        batching=batching, max_sequences=32, token_budget=1024,
        blocks=draw.choice([100, 400, 10_000]),
    )  # fmt: skip
    serve(Replica(rules, times(), asked, one_by_one=one_by_one), asked)
    return asked, gaps(asked.logs)


@pytest.mark.parametrize("batching", ["mixed", "prefill_first", "whole_prompts", "static"])
@pytest.mark.parametrize("seed", range(12))
def test_gaps_add_up_to_the_time_between_first_and_last_tokens(
    seed: int, batching: Batching
) -> None:
    asked, found = served(seed, batching, one_by_one=False)
    assert NEVER not in asked.finish
    between = sum(
        last - first for first, last in zip(asked.first, asked.finish, strict=True)
    )  # fmt: skip
    assert found.total_ps == between
    assert found.count == sum(asked.output) - REQUESTS


@pytest.mark.parametrize("batching", ["mixed", "prefill_first", "whole_prompts", "static"])
@pytest.mark.parametrize("seed", range(4))
def test_skipped_steps_have_the_gaps_of_single_ones(seed: int, batching: Batching) -> None:
    _, skipped = served(seed, batching, one_by_one=False)
    _, single = served(seed, batching, one_by_one=True)
    np.testing.assert_array_equal(_each(skipped), _each(single))


def _each(found: Gaps) -> np.ndarray:
    """Return all gaps in order."""
    runs = zip(found.first, found.last, found.steps, found.weight, strict=True)
    return np.sort(np.concatenate([np.repeat(np.linspace(a, b, n), w) for a, b, n, w in runs]))
