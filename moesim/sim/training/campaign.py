"""A whole training run: stretches of steps, checkpoints, failures, restarts, repairs.

Steps between two checkpoints are one event, so the events grow with failures and checkpoints. The
processes: the job; the failures, a Poisson process (memoryless, so that failures drawn while no
node works are left out); one per node in repair; one per checkpoint written in the background.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from math import ceil, exp, log, sqrt

import numpy as np
import simpy

from moesim.rng import stream
from moesim.sim.kernel import Clock, Steps

Stage = Generator[simpy.Event, object, bool]
"""A part of the job: false if a failure cut it short."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps that take the same time, up to the chance of each."""

    steps: int
    step_s: float
    global_batch: int = 0
    """Sequences per step, for reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignPlan:
    """Everything that a campaign needs to be simulated."""

    phases: tuple[Phase, ...]
    failures_per_s: float
    """Of all devices together."""
    checkpoint_every_s: float | None
    checkpoint_every_steps: int | None
    blocked_s: float
    """Training stands this long at a checkpoint."""
    background_s: float
    """After that, the checkpoint can be loaded so much later."""
    detect_s: float
    restore_s: float
    spare_nodes: int
    repair_s: float
    step_spread: float

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def ideal_s(self, first: int, last: int) -> float:
        """Return the seconds of the steps from `first` up to, not including, `last`."""
        return sum(count * step_s for count, step_s in self._steps_of(first, last))

    def stretch_s(self, first: int, last: int, chance: np.random.Generator) -> float:
        """Return the drawn seconds of these steps.

        A step is t exp(s z), z standard normal: mean t exp(s^2/2), variance t^2 exp(s^2)
        (exp(s^2) - 1). The sum of n is drawn as one lognormal with the sum's mean and variance
        (Fenton 1960, IRE Trans. Commun. Syst. 8(1)), which tends to their exact law as n grows.
        """
        mean_s = self.ideal_s(first, last)
        spread = self.step_spread
        if spread == 0 or mean_s == 0:
            return mean_s
        squares = sum(count * step_s**2 for count, step_s in self._steps_of(first, last))
        mean_s *= exp(spread**2 / 2)
        variance = squares * exp(spread**2) * (exp(spread**2) - 1)
        shape = log(1 + variance / mean_s**2)
        return mean_s * exp(sqrt(shape) * float(chance.standard_normal()) - shape / 2)

    def next_checkpoint(self, position: int) -> int:
        """Return the step after which the checkpoint after step `position` is due."""
        if self.checkpoint_every_steps is not None:
            return min(position + self.checkpoint_every_steps, self.steps)
        left_s, end = self.checkpoint_every_s or 0.0, 0
        for phase in self.phases:
            end += phase.steps
            if position < end:
                needed = max(1, ceil(left_s / phase.step_s - 1e-9))
                if position + needed <= end:
                    return position + needed
                left_s -= (end - position) * phase.step_s
                position = end
                if left_s <= 0:
                    return position
        return position

    def _steps_of(self, first: int, last: int) -> list[tuple[int, float]]:
        found, start = [], 0
        for phase in self.phases:
            count = min(last, start + phase.steps) - max(first, start)
            if count > 0:
                found.append((count, phase.step_s))
            start += phase.steps
        return found


@dataclass(slots=True)
class CampaignLog:
    """How a campaign went. The seconds but the first sum to the first."""

    wall_s: float = 0.0
    training_s: float = 0.0
    """Steps that were kept, at the time of the simulated step."""
    straggling_s: float = 0.0
    """What these steps took beyond that."""
    lost_s: float = 0.0
    """Training done since the last checkpoint that could be loaded, at each failure."""
    checkpoint_s: float = 0.0
    restart_s: float = 0.0
    waiting_s: float = 0.0
    """No healthy node was there."""
    failures: int = 0
    checkpoints: int = 0

    @property
    def goodput_fraction(self) -> float:
        """Time of the kept steps at their simulated speed, over all time."""
        return self.training_s / self.wall_s


@dataclass(slots=True)
class _Campaign:
    """The state that the processes of one campaign share."""

    plan: CampaignPlan
    gaps: np.random.Generator
    speeds: np.random.Generator
    clock: Clock = field(default_factory=Clock)
    log: CampaignLog = field(default_factory=CampaignLog)
    saved: int = 0
    """Steps that a failure cannot take back."""
    open_s: float = 0.0
    """Training since the state that was last copied."""
    pending_s: float = 0.0
    """Training up to that copy, while it is being written."""
    copies: int = 0
    exposed: bool = True
    """Whether nodes work, and so can fail."""
    finished: bool = False
    spares: simpy.Container = field(init=False)
    failed: simpy.Event = field(init=False)
    written: simpy.Event = field(init=False)

    def __post_init__(self) -> None:
        self.spares = simpy.Container(self.clock.environment, init=self.plan.spare_nodes)
        self.failed = self.clock.event()
        self.written = self.clock.event().succeed()

    def commit(self, position: int) -> None:
        """Count the steps up to `position` as done for good."""
        ideal_s = self.plan.ideal_s(self.saved, position)
        self.log.training_s += ideal_s
        self.log.straggling_s += self.pending_s - ideal_s
        self.log.checkpoints += 1
        self.saved, self.pending_s = position, 0.0


def simulate_campaign(plan: CampaignPlan, seed: int, number: int) -> CampaignLog:
    """Return how campaign `number` under `seed` goes, from its first step to its last checkpoint.

    The gaps between failures are exponential draws over the rate: campaigns of equal number fail
    alike, sooner or later, whatever their plan.
    """
    gaps = stream(seed, f"campaign {number} failures")
    campaign = _Campaign(plan, gaps, stream(seed, f"campaign {number} speeds"))
    campaign.clock.start("the job", _job(campaign))
    campaign.clock.start("the failures", _failures(campaign))
    campaign.clock.run()
    return campaign.log


def _job(campaign: _Campaign) -> Steps:
    plan, position = campaign.plan, 0
    while campaign.saved < plan.steps:
        if position < plan.steps:
            target = plan.next_checkpoint(position)
            whole = yield from _cycle(campaign, position, target)
        else:
            target = position
            whole = yield from _written(campaign)
        if not whole:
            yield from _recover(campaign)
        position = target if whole else campaign.saved
    campaign.finished = True
    campaign.log.wall_s = campaign.clock.now_s


def _cycle(campaign: _Campaign, position: int, target: int) -> Stage:
    """Train up to step `target`, then save."""
    duration_s = campaign.plan.stretch_s(position, target, campaign.speeds)
    start_s = campaign.clock.now_s
    whole = yield from _until(campaign, campaign.clock.after(duration_s))
    campaign.open_s += campaign.clock.now_s - start_s
    if not whole:
        return False
    if not (yield from _written(campaign)):
        return False
    if not (yield from _spend(campaign, campaign.plan.blocked_s, "checkpoint_s")):
        return False
    campaign.pending_s, campaign.open_s = campaign.open_s, 0.0
    if campaign.plan.background_s == 0:
        campaign.commit(target)
    else:
        campaign.copies += 1
        campaign.written = campaign.clock.event()
        name = f"write {campaign.copies}"
        campaign.clock.start(name, _write(campaign, campaign.copies, target))
    return True


def _write(campaign: _Campaign, copy: int, position: int) -> Steps:
    """Write a copy in the background; a failure meanwhile makes it worthless."""
    yield campaign.clock.after(campaign.plan.background_s)
    if copy == campaign.copies:
        campaign.commit(position)
        campaign.written.succeed()


def _written(campaign: _Campaign) -> Stage:
    """Wait until the copy before is written."""
    if campaign.written.processed:
        return True
    start_s = campaign.clock.now_s
    whole = yield from _until(campaign, campaign.written)
    campaign.log.checkpoint_s += campaign.clock.now_s - start_s
    return whole


def _recover(campaign: _Campaign) -> Steps:
    """Give up what is not saved; come back, which another failure starts anew."""
    campaign.log.lost_s += campaign.pending_s + campaign.open_s
    campaign.pending_s = campaign.open_s = 0.0
    campaign.copies += 1
    campaign.written = campaign.clock.event().succeed()
    missing, plan = 0, campaign.plan
    while True:
        missing += 1
        campaign.log.failures += 1
        campaign.clock.start(f"repair {campaign.log.failures}", _repair(campaign))
        if not (yield from _spend(campaign, plan.detect_s, "restart_s")):
            continue
        yield from _wait(campaign, missing)
        missing = 0
        if (yield from _spend(campaign, plan.restore_s, "restart_s")):
            return


def _wait(campaign: _Campaign, nodes: int) -> Steps:
    start_s = campaign.clock.now_s
    campaign.exposed = False
    yield campaign.spares.get(nodes)
    campaign.exposed = True
    campaign.log.waiting_s += campaign.clock.now_s - start_s


def _repair(campaign: _Campaign) -> Steps:
    yield campaign.clock.after(campaign.plan.repair_s)
    yield campaign.spares.put(1)


def _failures(campaign: _Campaign) -> Steps:
    while not campaign.finished and campaign.plan.failures_per_s > 0:
        gap_s = float(campaign.gaps.exponential()) / campaign.plan.failures_per_s
        yield campaign.clock.after(gap_s)
        if campaign.exposed:
            happened, campaign.failed = campaign.failed, campaign.clock.event()
            happened.succeed()


def _spend(campaign: _Campaign, seconds: float, on: str) -> Stage:
    """Let `seconds` pass, entered in the log under `on`."""
    if seconds == 0:
        return True
    start_s = campaign.clock.now_s
    whole = yield from _until(campaign, campaign.clock.after(seconds))
    setattr(campaign.log, on, getattr(campaign.log, on) + campaign.clock.now_s - start_s)
    return whole


def _until(campaign: _Campaign, event: simpy.Event) -> Stage:
    """Wait for `event`; return whether it came before a failure."""
    failed = campaign.failed
    yield event | failed
    return not failed.triggered
