"""Many decode steps at once take exactly what they take one by one; lines meet their points."""

from random import Random

import pytest

from moesim.cost.iteration import (
    Lines,
    TabledTimes,
    raised,
    step_ps,
    steps_ps,
    steps_until,
    through,
)

# 100 ps + 2 per token below 1,000 tokens, 600 + 1.5 (rounded to whole) from there
BENT = Lines((0, 1000, 5000), (100, 1100, -3900), (2, 1, 2))


def test_a_step_by_hand() -> None:
    assert step_ps(BENT, 0) == 100
    assert step_ps(BENT, 999) == 100 + 2 * 999
    assert step_ps(BENT, 1000) == 1100 + 1000
    assert step_ps(BENT, 6000) == -3900 + 12000


def test_steps_over_a_knot_are_the_sum_of_single_ones() -> None:
    random = Random(5)
    for _ in range(300):
        cached, growth = random.randint(0, 6000), random.randint(0, 70)
        steps = random.randint(1, 200)
        singles = [step_ps(BENT, cached + growth * k) for k in range(steps)]
        assert steps_ps(BENT, cached, growth, steps) == sum(singles)


def test_the_fewest_steps_that_last_long_enough() -> None:
    random = Random(6)
    for _ in range(300):
        cached, growth = random.randint(0, 6000), random.randint(0, 70)
        most, span = random.randint(1, 60), random.randint(1, 200_000)
        done = total = 0
        while done < most and total < span:
            total += step_ps(BENT, cached + growth * done)
            done += 1
        found = steps_until(BENT, cached, growth, most=most, span_ps=span)
        assert found == (done, total)


def test_lines_through_points() -> None:
    # 1 us at none, 3 us at 1,000 and 4 us at 2,000 cached tokens: 2,000 and 1,000 ps a token
    lines = through((0, 1000, 2000), (1e-6, 3e-6, 4e-6))
    assert lines.slopes == (2000, 1000)
    assert step_ps(lines, 500) == 2_000_000
    assert step_ps(lines, 1500) == 3_500_000
    assert step_ps(lines, 3000) == 5_000_000  # the last line goes on
    assert step_ps(raised(lines, 7), 500) == 2_000_007


def _times() -> TabledTimes:
    return TabledTimes(
        decode_s=lambda n: ([0, 10**6], [1e-6 * n, 2e-6 * n]),
        batch_s=lambda tokens, sequences, everyone: 1e-3 + 1e-6 * tokens + 1e-5 * sequences
        + 1e-7 * everyone,
        attend_s=lambda tokens, past: 1e-9 * tokens * (past + tokens / 2),
    )  # fmt: skip


def test_a_mixed_iteration_is_everything_for_all_tokens_and_the_attention_of_each() -> None:
    times = _times()
    # 4 sequences over half a million tokens, and a chunk of 100 tokens after 50
    attention_s = 4e-6 * 1.5 + 1e-9 * 100 * (50 + 50)
    common_s = 1e-3 + 1e-6 * 104 + 1e-5 * 5 + 1e-7 * 104
    expected = round((attention_s + common_s) * 1e12)
    assert times.mixed_ps(4, 500_000, [(100, 50)]) == pytest.approx(expected, abs=2)
    assert times.mixed_ps(0, 0, [(8, 0)]) == times.common_ps(8, 1) + times.chunks_ps([(8, 0)])


def test_a_decode_step_is_a_mixed_iteration_without_chunks() -> None:
    times = _times()
    assert step_ps(times.lines(3), 4000) == times.mixed_ps(3, 4000, [])
    # other ranks' tokens only make the experts' share longer
    assert times.common_ps(3, 3, 30) - times.common_ps(3, 3) == round(2.7e-6 * 1e12)
