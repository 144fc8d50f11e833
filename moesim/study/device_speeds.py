"""Devices that are not equally fast: the slowest of a pipeline stage holds the others up."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moesim import rng
from moesim.cost.layout import Layout, degrees
from moesim.cost.pricing import Machine
from moesim.cost.stage import joint_passes
from moesim.cost.times import PassCost, StageCost
from moesim.hardware.rank_order import strides
from moesim.spec.scenario import ClusterChoice
from moesim.study.resolve import Training

Passes = tuple[PassCost, ...]


def device_speeds(cluster: ClusterChoice, seed: int) -> npt.NDArray[np.float64]:
    """Return the speed of each device, of median 1, by the number of its rank.

    exp(spread z) with z standard normal; the first of a permutation are the slow ones.
    """
    drawn = rng.stream(seed, "device speeds")
    speeds = np.exp(cluster.speed_spread * drawn.standard_normal(cluster.devices))
    if cluster.slow is not None:
        speeds[drawn.permutation(cluster.devices)[: cluster.slow.devices]] *= cluster.slow.speed
    return speeds


def stage_stride(layout: Layout) -> int:
    """Return how many ranks lie from one to the same one of the next stage."""
    return strides(degrees(layout).dense, layout.rank_order)["pp"]


def slowness(cluster: ClusterChoice, seed: int, layout: Layout) -> tuple[float, ...]:
    """Return how many times as long compute takes on the slowest device of each stage.

    Rank r is of stage r // stride % pp, with the stride of pp in the order of ranks.
    """
    if not cluster.speed_spread and cluster.slow is None:
        return (1.0,) * layout.pp
    by_stage = device_speeds(cluster, seed).reshape(-1, layout.pp, stage_stride(layout))
    return tuple(float(1 / speed) for speed in by_stage.min(axis=(0, 2)))


def slowed(run: Training, costs: tuple[StageCost, ...], on: Machine) -> tuple[StageCost, ...]:
    """Return each stage's costs as its slowest device has them.

    All ranks of a stage meet: in tensor and expert parallel groups at each layer, over replicas at
    the latest when gradients are reduced. With replicas that meet only there, the slowest of each
    stage need not be of the same pipeline, so that the step comes out long rather than short. All
    compute slows down alike, transfers do not; passes in pairs hide more of them beside it.
    """
    times = slowness(run.scenario.cluster, run.scenario.seed, run.layout)
    paired = run.job.exchange_overlap == "batch"
    return tuple(
        _stage(cost, each, on, paired) if each != 1.0 else cost
        for cost, each in zip(costs, times, strict=True)
    )


def _stage(cost: StageCost, times: float, on: Machine, paired: bool) -> StageCost:
    forward, backward = _passes(cost.forward, times), _passes(cost.backward, times)
    return replace(
        cost,
        forward=forward,
        backward=backward,
        inputs=_passes(cost.inputs, times),
        weights=_passes(cost.weights, times),
        joint=joint_passes(forward, backward, on, paired),
        update_s=cost.update_s * times,
    )


def _passes(passes: Passes, times: float) -> Passes:
    return tuple(slower_pass(one, times) for one in passes)


def slower_pass(one: PassCost, times: float) -> PassCost:
    """Return a pass whose compute takes so many times as long."""
    parts = tuple(
        replace(part, seconds=part.seconds * times) if part.stream == "compute" else part
        for part in one.parts
    )
    return replace(one, parts=parts, seconds=sum(part.seconds for part in parts))
