"""A scenario's campaign: days and cost to train on all of its tokens, failures included."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np

from moesim.cost.checkpoint import checkpoint_bytes, expected_wall_s, storage_s, young_interval_s
from moesim.errors import ScenarioError
from moesim.model.parameters import total_params
from moesim.sim.training.campaign import CampaignLog, CampaignPlan, Phase, simulate_campaign
from moesim.spec.campaign import CampaignSpec, CheckpointSpec
from moesim.spec.scenario import Scenario
from moesim.study.outcome import Metrics, Outcome
from moesim.study.resolve import Training, training
from moesim.study.simulate import simulate
from moesim.units import readable

MAX_CYCLES = 1_000_000
"""Checkpoints and failures of all seeds together that are simulated at most."""

Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """A figure over the seeds."""

    p5: float
    p50: float
    p95: float
    mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What a campaign came to, seed by seed."""

    plan: CampaignPlan
    checkpoint_bytes: float
    write_s: float
    """Time to write a checkpoint whole."""
    mtbf_s: float
    """Mean time between failures of the job."""
    young_interval_s: float
    """Training time between checkpoints that would lose least, to first order; no shorter than a
    copy takes to be written beside training, since the next waits for it."""
    usd_per_s: float | None
    """Spare nodes included."""
    logs: tuple[CampaignLog, ...]

    @property
    def uninterrupted_s(self) -> float:
        """Time of the same steps with no failure, checkpoint or straggler."""
        return self.plan.ideal_s(0, self.plan.steps)

    @property
    def interval_s(self) -> float:
        """Training time between checkpoints, at the longest step where it is given in steps."""
        if self.plan.checkpoint_every_s is not None:
            return self.plan.checkpoint_every_s
        longest_s = max(phase.step_s for phase in self.plan.phases)
        return (self.plan.checkpoint_every_steps or 0) * longest_s

    def over_seeds(self, figure: Callable[[CampaignLog], float]) -> Quantiles:
        """Return `figure` over the seeds, quantiles interpolated between them."""
        values = np.array([figure(log) for log in self.logs], dtype=np.float64)
        p5, p50, p95 = (float(q) for q in np.quantile(values, [0.05, 0.5, 0.95]))
        return Quantiles(p5, p50, p95, float(values.mean()))


def campaign(run: Training, outcome: Outcome, tell: Tell) -> Campaign | None:
    """Return the campaign of `run`, whose step is that of `outcome`; None where none is asked for.

    Raises ScenarioError for a campaign that cannot be simulated.
    """
    scenario, spec = run.scenario, run.scenario.campaign
    if spec is None:
        return None
    size = spec.checkpoint.size
    if size is None:
        size = checkpoint_bytes(total_params(run.architecture), run.job.optimizer)
    write_s = storage_s(size, spec.checkpoint.storage_bandwidth)
    mtbf_s = spec.device_mtbf / run.layout.devices
    plan = _plan(spec, _phases(run, spec, outcome.metrics), write_s, mtbf_s)
    _check_effort(scenario, plan, spec, mtbf_s)
    logs = []
    for number in range(spec.seeds):
        tell(number, spec.seeds)
        logs.append(simulate_campaign(plan, scenario.seed, number))
    return Campaign(
        plan=plan,
        checkpoint_bytes=size,
        write_s=write_s,
        mtbf_s=mtbf_s,
        young_interval_s=max(young_interval_s(plan.blocked_s, mtbf_s), plan.background_s),
        usd_per_s=_usd_per_s(run, spec),
        logs=tuple(logs),
    )


def _plan(
    spec: CampaignSpec, phases: tuple[Phase, ...], write_s: float, mtbf_s: float
) -> CampaignPlan:
    blocked_s, background_s = _saving(spec.checkpoint, write_s)
    reload_s = write_s if spec.restart.reload is None else spec.restart.reload
    return CampaignPlan(
        phases=phases,
        failures_per_s=1 / mtbf_s,
        checkpoint_every_s=spec.checkpoint.every,
        checkpoint_every_steps=spec.checkpoint.every_steps,
        blocked_s=blocked_s,
        background_s=background_s,
        detect_s=spec.restart.detect,
        restore_s=spec.restart.replace + reload_s,
        spare_nodes=spec.spare_nodes,
        repair_s=spec.repair,
        step_spread=spec.step_spread,
    )


def _saving(checkpoint: CheckpointSpec, write_s: float) -> tuple[float, float]:
    """Return how long a checkpoint stops training, and how long it is written after that."""
    if checkpoint.mode == "sync" or checkpoint.stall is None:
        return write_s, 0.0
    return checkpoint.stall, write_s


def _phases(run: Training, spec: CampaignSpec, last: Metrics) -> tuple[Phase, ...]:
    """Return the steps of each batch: whole ones, until its tokens are trained on."""
    wanted = run.scenario.training.tokens
    if not wanted:
        raise run.scenario.error("campaign", "needs training.tokens, what is trained on in all")
    phases, trained = [], 0.0
    for number, entry in enumerate(spec.batch_ramp):
        if entry.until_tokens >= wanted:
            raise run.scenario.error(
                f"campaign.batch_ramp.{number}.until_tokens",
                "must lie below training.tokens, where training.global_batch holds",
            )
        metrics = _with_batch(run, number, entry.global_batch)
        steps = max(0, ceil((entry.until_tokens - trained) / metrics.tokens_per_step))
        trained += steps * metrics.tokens_per_step
        phases.append(Phase(steps, metrics.step_s, entry.global_batch))
    steps = max(0, ceil((wanted - trained) / last.tokens_per_step))
    phases.append(Phase(steps, last.step_s, run.scenario.training.global_batch))
    return tuple(phase for phase in phases if phase.steps)


def _with_batch(run: Training, number: int, global_batch: int) -> Metrics:
    """Return the figures of a step with another batch."""
    scenario = run.scenario
    spec = scenario.training.model_copy(update={"global_batch": global_batch})
    changed = scenario.model_copy(update={"training": spec})
    try:
        other = training(changed, run.architecture, run.cluster, run.software, scenario.parallel)
    except ScenarioError as error:
        key = f"campaign.batch_ramp.{number}.global_batch"
        raise scenario.error(key, error.problems[0].message) from None
    return simulate(other).metrics


def _check_effort(
    scenario: Scenario, plan: CampaignPlan, spec: CampaignSpec, mtbf_s: float
) -> None:
    """Raise ScenarioError where the campaign would not end, or only after too many events."""
    training_s = plan.ideal_s(0, plan.steps)
    cycles = 1
    if spec.checkpoint.every_steps is not None:
        cycles = ceil(plan.steps / spec.checkpoint.every_steps)
    elif spec.checkpoint.every is not None:
        longest_s = max(phase.step_s for phase in plan.phases)
        cycles = ceil(training_s / max(spec.checkpoint.every, longest_s))
    every_s = training_s / cycles
    restart_s, saving_s = plan.detect_s + plan.restore_s, plan.blocked_s + plan.background_s
    wall_s = expected_wall_s(training_s, every_s, saving_s, restart_s, mtbf_s)
    if spec.seeds * (cycles + wall_s / mtbf_s) <= MAX_CYCLES:
        return
    if spec.seeds * cycles > MAX_CYCLES:
        raise scenario.error(
            "campaign.checkpoint",
            f"{cycles:,} checkpoints under {spec.seeds} seeds are more than the {MAX_CYCLES:,} "
            "that are simulated; save less often or take fewer seeds",
        )
    raise scenario.error(
        "campaign.device_mtbf",
        f"the job fails every {readable(mtbf_s, 's')}, and "
        f"{readable(every_s + saving_s + restart_s, 's')} pass from a failure to the next "
        f"checkpoint: more failures than the {MAX_CYCLES:,} that are simulated, or no end at all",
    )


def _usd_per_s(run: Training, spec: CampaignSpec) -> float | None:
    price = run.cluster.device.price_usd_per_device_hour
    if price is None:
        return None
    spares = spec.spare_nodes * run.cluster.topology.devices_per_node
    return price * (run.layout.devices + spares) / 3600
