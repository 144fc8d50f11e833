"""A layout judged without simulating it: step time in closed form, and peak memory."""

from dataclasses import dataclass

from moesim.cost.pricing import machine
from moesim.cost.times import StageCost
from moesim.study.resolve import Training
from moesim.study.routing import draw
from moesim.study.simulate import memory, stage_costs
from moesim.study.split import stage_chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a layout comes to, near enough to choose between layouts."""

    run: Training
    step_s: float
    peak_bytes: float

    @property
    def fits(self) -> bool:
        """Whether the fullest device fits."""
        return self.peak_bytes <= self.run.cluster.device.memory_capacity_bytes


def bound(run: Training) -> Bound:
    """Return step time and peak memory of `run` in closed form.

    t = m max(f + b) + (p - 1) / v * mean(f + b) + reduction + update, with f and b of a stage;
    reduction, that of a shared embedding included, counts in full although a part of it is hidden.
    """
    stages = stage_chunks(run)
    loads = draw(run, 0)
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    costs = stage_costs(run, stages, loads, on)
    share = 0.5 if run.layout.schedule == "dualpipe" else 1.0  # of the micro-batches, each way
    both = [share * _both_s(cost) for cost in costs]
    ramp_s = (run.layout.pp - 1) / run.layout.vpp * sum(both) / len(both)
    after_s = max(cost.reduce_s + cost.embedding_s + cost.update_s for cost in costs)
    return Bound(
        run=run,
        step_s=run.micro_batches * max(both) + ramp_s + after_s,
        peak_bytes=max(stage.total for stage in memory(run, stages, loads)),
    )


def _both_s(cost: StageCost) -> float:
    if cost.joint:
        return sum(cost.joint[number][number].seconds for number in range(len(cost.joint)))
    return sum(one.seconds for one in (*cost.forward, *cost.backward))
