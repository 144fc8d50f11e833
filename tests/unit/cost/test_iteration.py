"""Many decode steps at once take exactly what they take one by one; lines meet their points."""

from random import Random

import pytest

from moesim.cost.iteration import (
    Lines,
    TabledTimes,
    floored,
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


@pytest.mark.parametrize("least", [50, 101, 1500, 2100, 3000, 6100, 9000])
def test_the_larger_of_lines_and_a_number(least: int) -> None:
    found = floored(BENT, least)
    for cached in (0, 1, 300, 699, 700, 701, 999, 1000, 1001, 1899, 1900, 4999, 5000, 6449, 6451):
        assert step_ps(found, cached) == max(step_ps(BENT, cached), least)
    assert list(found.knots) == sorted(set(found.knots))


def test_lines_that_only_rise_later_may_lie_below_a_number() -> None:
    flat = Lines((0, 10), (5, 5), (0, 3))
    assert [step_ps(floored(flat, 20), cached) for cached in (0, 9, 10, 11)] == [20, 20, 35, 38]


def test_a_host_that_works_beside_the_device_bounds_an_iteration_as_a_whole() -> None:
    """Device: 4 ms and 1 us per cached token; host 1 ms and 0.5 ms per sequence."""
    times = TabledTimes(
        lambda n: ([0, 1], [0.0, 1e-6]), lambda t, s, e: 4e-3, lambda t, p: 3e-3,
        lambda n: 1e-3 + 0.5e-3 * n,
    )  # fmt: skip
    ms = 10**9
    assert step_ps(times.lines(2), 1000) == 5 * ms  # host: 2 ms
    assert step_ps(times.lines(10), 1000) == 6 * ms
    assert step_ps(times.lines(10), 3000) == 7 * ms
    assert times.mixed_ps(10, 1000, [(64, 0)]) == 8 * ms  # host: 6.5 ms of 11 sequences
    assert times.mixed_ps(20, 1000, [(64, 0)]) == round(11.5 * ms)


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
