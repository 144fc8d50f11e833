"""Steps that yield more than a token: sums against counting, skipping against stepping."""

import random
from array import array
from fractions import Fraction
from itertools import accumulate

import pytest

from moesim.cost.iteration import Lines, step_ps
from moesim.sim.serving.open_loop import serve
from moesim.sim.serving.pace import Pace, floor_sum
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests
from moesim.sim.serving.rules import EngineRules
from tests.unit.sim.serving.plain_times import PlainTimes


@pytest.mark.parametrize("seed", range(30))
def test_sums_of_floors_match_counting(seed: int) -> None:
    """For slopes above and below one, and starts beyond the divisor."""
    draw = random.Random(seed)
    count, divisor = draw.randint(0, 50), draw.randint(1, 40)
    slope, start = draw.randint(0, 90), draw.randint(0, 90)
    expected = sum((slope * i + start) // divisor for i in range(count))
    assert floor_sum(count, divisor, slope, start) == expected


@pytest.mark.parametrize("seed", range(30))
def test_steps_match_step_by_step_addition(seed: int) -> None:
    """Over lines with knots; and the fewest steps of a span by trying all."""
    draw = random.Random(seed)
    q = draw.randint(1, 12)
    pace = Pace(draw.randint(q, 4 * q), q)
    knots = (0, *sorted(draw.sample(range(1, 500), 3)))
    lines = Lines(knots, (5, 70, 300, 11), (9, 4, 1, 8))
    cached, n, first = draw.randint(0, 200), draw.randint(1, 7), draw.randint(0, 30)
    each = [
        step_ps(lines, cached + n * (pace.tokens(first + i) - pace.tokens(first)))
        for i in range(80)
    ]
    totals = list(accumulate(each))
    for steps in (1, 2, 17, 80):
        assert pace.steps_ps(lines, cached, n, first, steps) == totals[steps - 1]
    span = draw.randint(1, totals[-1])
    fewest = next(i for i, total in enumerate(totals, 1) if total >= span)
    found = pace.steps_until(lines, cached, n, first=first, most=80, span_ps=span)
    assert found == (fewest, totals[fewest - 1])


def run(seed: int, pace: tuple[int, int], *, one_by_one: bool) -> Requests:
    """Serve a random workload in a small cache."""
    draw = random.Random(seed)
    count = draw.randint(5, 40)
    prompts = array("q", (draw.randint(1, 60) for _ in range(count)))
    outputs = array("q", (draw.randint(1, 50) for _ in range(count)))
    arrivals = array("q", sorted(draw.randint(0, 60_000) for _ in range(count)))
    asked = Requests(prompts, outputs, arrivals)
    rules = EngineRules(
        max_sequences=draw.randint(1, 8), token_budget=40, block_tokens=4,
        blocks=draw.randint(30, 60), tokens_per_step=pace,
    )  # fmt: skip
    serve(Replica(rules, PlainTimes(), asked, one_by_one=one_by_one), asked)
    return asked


@pytest.mark.parametrize("seed", range(60))
def test_skipping_is_stepping(seed: int) -> None:
    """Law 11, with preemptions."""
    pace = random.Random(seed).choice([(5, 4), (9, 5), (271, 100), (3, 1)])
    skipped, stepped = (run(seed, pace, one_by_one=one) for one in (False, True))
    for name in ("scheduled", "first", "finish", "preemptions"):
        assert getattr(skipped, name) == getattr(stepped, name)


def test_a_token_a_step_is_what_it_was() -> None:
    """2/2 tokens go the way of guesses, and end as plain decoding does."""
    for seed in range(20):
        assert run(seed, (2, 2), one_by_one=False).finish == run(
            seed, (1, 1), one_by_one=False
        ).finish  # fmt: skip


def test_steps_of_one_request_by_hand() -> None:
    """1 + 9 tokens at 1.8 a step: after steps 1, 3, 5, 7, 9 tokens, so 5 steps."""
    asked = Requests(array("q", [10]), array("q", [10]), array("q", [0]))
    rules = EngineRules(
        max_sequences=1, token_budget=40, block_tokens=4, blocks=30,
        tokens_per_step=(9, 5), checked_tokens=2,
    )  # fmt: skip
    serve(Replica(rules, PlainTimes(), asked), asked)
    prefill = 1000 + 3 * 10 + 11 + 10 * 10
    grown = [sum(int(Fraction(9, 5) * i) for i in range(5))]
    steps = 5 * (1000 + 3 + 11 + 7 * 11) + 7 * grown[0]
    assert (asked.first[0], asked.finish[0]) == (prefill, prefill + steps)
