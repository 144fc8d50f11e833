"""Campaigns against closed forms: no failures, Daly's expected time, Young's interval, limits."""

from dataclasses import replace
from math import exp, sqrt
from time import process_time

import numpy as np
import pytest

from moesim.rng import stream
from moesim.sim.training.campaign import CampaignLog, CampaignPlan, Phase, simulate_campaign

HOUR = 3600.0
PLAN = CampaignPlan(
    phases=(Phase(36_000, 10.0),),
    failures_per_s=0.0,
    checkpoint_every_s=None,
    checkpoint_every_steps=180,
    blocked_s=60.0,
    background_s=0.0,
    detect_s=100.0,
    restore_s=200.0,
    spare_nodes=0,
    repair_s=0.0,
    step_spread=0.0,
)
"""100 hours of training; a checkpoint of a minute every half hour."""
FAILING = replace(PLAN, failures_per_s=1 / (10 * HOUR))


def logs(plan: CampaignPlan, count: int) -> list[CampaignLog]:
    return [simulate_campaign(plan, 0, number) for number in range(count)]


def wall(plan: CampaignPlan, count: int) -> tuple[float, float]:
    """Return the mean time of `count` campaigns and its standard error."""
    walls = np.array([log.wall_s for log in logs(plan, count)])
    return float(walls.mean()), float(walls.std(ddof=1) / sqrt(count))


def test_without_failures_training_and_checkpoints_are_all_there_is() -> None:
    log = simulate_campaign(PLAN, 0, 0)
    assert log.checkpoints == 200
    assert log.wall_s == pytest.approx(360_000 + 200 * 60)
    assert log.goodput_fraction == pytest.approx(360_000 / 372_000)
    assert log.failures == log.lost_s == log.restart_s == log.waiting_s == 0


def test_an_interval_in_seconds_ends_with_the_step() -> None:
    every_25_s = replace(PLAN, checkpoint_every_s=25.0, checkpoint_every_steps=None)
    assert simulate_campaign(every_25_s, 0, 0).checkpoints == 12_000


def test_a_checkpoint_is_due_across_phases() -> None:
    plan = replace(
        PLAN,
        phases=(Phase(5, 10.0), Phase(100, 4.0)),
        checkpoint_every_s=58.0,
        checkpoint_every_steps=None,
    )
    assert plan.next_checkpoint(0) == 7
    assert plan.next_checkpoint(7) == 22
    assert plan.next_checkpoint(100) == 105
    assert plan.ideal_s(3, 7) == pytest.approx(28.0)


def test_an_asynchronous_checkpoint_hides_all_but_its_stall() -> None:
    hidden = replace(PLAN, blocked_s=5.0, background_s=600.0)
    assert simulate_campaign(hidden, 0, 0).wall_s == pytest.approx(360_000 + 200 * 5 + 600)


def test_a_copy_waits_for_the_one_before() -> None:
    """Half an hour of training against an hour of writing: the storage sets the pace."""
    slow = replace(PLAN, blocked_s=5.0, background_s=HOUR)
    assert simulate_campaign(slow, 0, 0).wall_s == pytest.approx(1800 + 200 * (5 + 3600))


@pytest.mark.parametrize("mtbf_h", [2.0, 10.0, 50.0])
def test_the_mean_is_that_of_daly(mtbf_h: float) -> None:
    """M exp(R/M) (exp((tau + C)/M) - 1) Ts/tau (Daly 2006, FGCS 22(3), complete model)."""
    mtbf = mtbf_h * HOUR
    mean, error = wall(replace(PLAN, failures_per_s=1 / mtbf), 200)
    expected = mtbf * exp(300 / mtbf) * (exp(1860 / mtbf) - 1) * 360_000 / 1800
    assert error < 0.01 * expected
    assert abs(mean - expected) < 4 * error


def test_a_small_overhead_is_that_of_young() -> None:
    """Checkpoint over interval plus interval over twice the mean time between failures."""
    free = replace(PLAN, detect_s=0.0, restore_s=0.0, failures_per_s=1 / (30 * HOUR))
    mean, error = wall(free, 400)
    overhead = 60 / 1800 + 1800 / (2 * 30 * HOUR)
    assert mean / 360_000 - 1 == pytest.approx(overhead, abs=4 * error / 360_000 + 2e-3)


def test_young_s_interval_loses_least() -> None:
    """sqrt(2 C M) with C = 60 s and M = 10 h is 2,078 s: 208 steps."""
    times = {n: wall(replace(FAILING, checkpoint_every_steps=n), 100)[0] for n in (52, 208, 832)}
    assert times[208] < times[52]
    assert times[208] < times[832]


def test_saving_after_each_step_at_no_cost_loses_nothing() -> None:
    """A failure still costs the half step that ran: 10 failures of 5 s in 36,000 s."""
    free = replace(
        FAILING, phases=(Phase(36_000, 1.0),), checkpoint_every_steps=1, blocked_s=0.0,
        detect_s=0.0, restore_s=0.0,
    )  # fmt: skip
    goodputs = [log.goodput_fraction for log in logs(free, 3)]
    assert min(goodputs) > 1 - 1e-3


def test_more_failures_never_raise_the_mean_goodput() -> None:
    means = []
    for mtbf_h in (200.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0):
        runs = logs(replace(PLAN, failures_per_s=1 / (mtbf_h * HOUR)), 40)
        means.append(np.mean([log.goodput_fraction for log in runs]))
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize(
    "plan",
    [
        FAILING,
        replace(FAILING, blocked_s=5.0, background_s=900.0, step_spread=0.1),
        replace(FAILING, spare_nodes=1, repair_s=20 * HOUR),
    ],
)
def test_the_parts_sum_to_the_whole(plan: CampaignPlan) -> None:
    runs = logs(plan, 10)
    assert sum(log.failures for log in runs) > 50
    for log in runs:
        parts = log.training_s + log.straggling_s + log.lost_s
        parts += log.checkpoint_s + log.restart_s + log.waiting_s
        assert parts == pytest.approx(log.wall_s, rel=1e-9)
        assert log.training_s == pytest.approx(360_000)


def test_a_copy_that_is_not_written_yet_saves_nothing() -> None:
    """The same failures lose more when checkpoints arrive a quarter of an hour later."""
    prompt = logs(replace(FAILING, blocked_s=5.0), 40)
    late = logs(replace(FAILING, blocked_s=5.0, background_s=900.0), 40)
    lost = [
        sum(log.lost_s for log in runs) / sum(log.failures for log in runs)
        for runs in (prompt, late)
    ]
    assert lost[1] - lost[0] == pytest.approx(900, rel=0.25)


def test_without_a_spare_the_job_waits_for_each_repair() -> None:
    """A failure, its detection, then the rest of the repair; another one meanwhile adds little."""
    waits = logs(replace(FAILING, repair_s=2 * HOUR), 20)
    for log in waits:
        assert log.waiting_s <= log.failures * (2 * HOUR - 100) + 1e-6
        assert log.waiting_s >= 0.9 * log.failures * (2 * HOUR - 100)
    assert all(log.waiting_s == 0 for log in logs(FAILING, 3))


def test_spare_nodes_take_the_place_of_failed_ones() -> None:
    means = [
        np.mean(
            [log.waiting_s for log in logs(replace(FAILING, spare_nodes=n, repair_s=5 * HOUR), 20)]
        )
        for n in (0, 1, 2, 8)
    ]
    assert means == sorted(means, reverse=True)
    assert means[-1] == 0


def test_a_stretch_has_mean_and_variance_of_the_sum_of_its_steps() -> None:
    """Against a sum drawn step by step."""
    plan = replace(PLAN, phases=(Phase(30, 2.0), Phase(30, 1.0)), step_spread=0.5)
    chance, steps = stream(1, "stretches"), stream(1, "steps")
    drawn = np.array([plan.stretch_s(10, 50, chance) for _ in range(20_000)])
    each = np.exp(0.5 * steps.standard_normal((20_000, 40)))
    each[:, :20] *= 2.0
    summed = each.sum(axis=1)
    assert drawn.mean() == pytest.approx(60 * exp(0.125), rel=0.005)
    assert drawn.mean() == pytest.approx(summed.mean(), rel=0.005)
    assert drawn.std() == pytest.approx(summed.std(), rel=0.03)


def test_stragglers_lengthen_training_by_half_the_squared_spread() -> None:
    runs = logs(replace(PLAN, step_spread=0.2), 5)
    for log in runs:
        assert log.straggling_s / log.training_s == pytest.approx(exp(0.02) - 1, rel=0.1)


def test_the_same_seed_gives_the_same_campaign() -> None:
    plan = replace(FAILING, step_spread=0.1)
    assert simulate_campaign(plan, 3, 1) == simulate_campaign(plan, 3, 1)
    assert simulate_campaign(plan, 3, 1) != simulate_campaign(plan, 3, 2)
    assert simulate_campaign(plan, 3, 1) != simulate_campaign(plan, 4, 1)


def test_three_months_of_2048_devices_take_little_time() -> None:
    """20 campaigns of 90 days in less than 30 s of CPU, at a failure a day and a half-hour pace."""
    plan = replace(
        PLAN, phases=(Phase(777_600, 10.0),), failures_per_s=1 / (24 * HOUR), step_spread=0.02,
        blocked_s=10.0, background_s=50.0, spare_nodes=4, repair_s=24 * HOUR,
    )  # fmt: skip
    before = process_time()
    runs = logs(plan, 20)
    assert process_time() - before < 30
    assert all(log.wall_s > 90 * 24 * HOUR for log in runs)
