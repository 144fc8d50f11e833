"""The micro-batches of a step where each routes its own tokens: loads, times of passes, memory."""

from collections.abc import Iterator, Mapping

import numpy as np

from moesim import rng
from moesim.cost.activations import Bytes, Moment, VariedActivations, varied_activations
from moesim.cost.memory import StageMemory, always_held, with_activations
from moesim.cost.pipeline import Chunk
from moesim.cost.pricing import Machine
from moesim.cost.times import StageCost
from moesim.cost.varied import (
    Values,
    VariedCost,
    between,
    crossed_s,
    moe_numbers,
    pair_s,
    pass_heights,
)
from moesim.cost.work import Loads, blocks
from moesim.moe.micro_batches import VariedLoad, vary
from moesim.sim.training.moments import FREES
from moesim.sim.training.schedules import Action, Order, Pair
from moesim.sim.training.step import work_of
from moesim.study.resolve import Training
from moesim.study.routing import moe_layers, router

VariedLoads = Mapping[int, VariedLoad]
"""What routing did in each micro-batch of a step, by the number of the layer."""


def varies(run: Training) -> bool:
    """Return whether micro-batches of a step have loads of their own."""
    load = run.scenario.routing.load
    return load.law != "even" and load.per != "step" and any(True for _ in moe_layers(run))


def draw_varied(run: Training, step: int) -> VariedLoads:
    """Return the loads of every MoE layer in each micro-batch of `step`.

    The popularity of the experts comes from the stream from which a draw per step takes it.
    """
    layers, found = list(moe_layers(run)), {}
    for layer in layers:
        name = f"{run.title}/routing/step {step}/layer {layer.number}"
        stream = rng.stream(run.scenario.seed, name)
        routed = router(layer, run, step)
        found[layer.number] = vary(routed, run.micro_batches, stream, layers=len(layers))
    return found


def loads_at(varied: VariedLoads, knot: str) -> Loads:
    """Return the loads of the first micro-batch, or at the knots low and high of each layer."""
    return {number: getattr(load, knot) for number, load in varied.items()}


def heights(run: Training, stage: list[Chunk], varied: VariedLoads, on: Machine) -> list[Values]:
    """Return where between both knots each micro-batch lies in each chunk of a stage."""
    knots = loads_at(varied, "low"), loads_at(varied, "high")
    of_layer = {number: load.heights for number, load in varied.items()}
    found = (pass_heights(run.job, chunk, knots, of_layer, on) for chunk in stage)
    return [np.zeros(run.micro_batches) if one is None else one for one in found]


Knots = tuple[tuple[StageCost, ...], tuple[StageCost, ...]]
"""The times of all stages at low and at high."""


def varied_costs(
    run: Training, stages: list[list[Chunk]], orders: tuple[Order, ...], *,
    varied: VariedLoads, knots: Knots, on: Machine,
) -> tuple[VariedCost, ...]:  # fmt: skip
    """Return the times of every stage, of which both knots are priced."""
    overlap = run.job.exchange_overlap == "batch"
    return tuple(
        VariedCost(
            low=low,
            high=high,
            crossed=crossed_s(low, high, _pairs(order), on, overlap),
            heights=tuple(heights(run, stage, varied, on)),
        )
        for stage, order, low, high in zip(stages, orders, *knots, strict=True)
    )


def _pairs(order: Order) -> tuple[tuple[int, int], ...]:
    """Return the chunks of the pairs of a stage."""
    found = ((one.forward.chunk, one.backward.chunk) for one in order if isinstance(one, Pair))
    return tuple(dict.fromkeys(found))


def durations(
    orders: tuple[Order, ...], costs: tuple[VariedCost, ...]
) -> tuple[tuple[float, ...], ...]:
    """Return the seconds of every item that the stages do, in their order."""
    return tuple(
        tuple(_seconds(cost, item) for item in order)
        for order, cost in zip(orders, costs, strict=True)
    )


def _seconds(cost: VariedCost, item: Action | Pair) -> float:
    if isinstance(item, Pair):
        chunks = item.forward.chunk, item.backward.chunk
        u, v = (float(_height(cost, one)) for one in (item.forward, item.backward))
        return pair_s(cost, chunks, u, v)
    low, high = (work_of(one, item).seconds for one in (cost.low, cost.high))
    return between(low, high, float(_height(cost, item)))


def _height(cost: VariedCost, one: Action) -> float:
    return float(cost.heights[one.chunk][one.micro_batch])


def varied_memory(
    run: Training, stages: list[list[Chunk]], varied: VariedLoads, orders: tuple[Order, ...]
) -> list[StageMemory]:
    """Return the peak memory of one rank of each stage, by the micro-batches in flight."""
    found, high = [], loads_at(varied, "high")
    for stage, order in zip(stages, orders, strict=True):
        always = always_held(run.job, stage, high, run.layout, run.software)
        moments = (one for during in held(order, stage_held(run, stage, varied)) for one in during)
        _, kept, working = max(moments, key=lambda one: one[1] + one[2])
        found.append(with_activations(always, kept, working, run.software))
    return found


def stage_held(
    run: Training, stage: list[Chunk], varied: VariedLoads
) -> tuple[VariedActivations, ...]:
    """Return what the chunks of a stage hold of each micro-batch."""
    high, job = loads_at(varied, "high"), run.job
    return tuple(
        varied_activations(
            blocks(job, chunk, high),
            [_rows(varied[n], run.micro_batches) for n in moe_numbers(job, chunk, high)],
            job.recompute,
            job.offload_layers,
        )
        for chunk in stage
    )


def _rows(load: VariedLoad, micro_batches: int) -> Bytes:
    """Return the rows of the ranks in each micro-batch, [micro-batches, ranks]."""
    return load.rank_rows[np.arange(micro_batches) % load.drawn].astype(np.float64)


Held = tuple[Moment, float, float]
"""What a stage is at, the bytes that the fullest rank keeps then, and those at work."""


def held(order: Order, chunks: tuple[VariedActivations, ...]) -> Iterator[tuple[Held, ...]]:
    """Yield for each item of `order` what the stage holds: one moment, two for a pair; then after.

    As in `moments`: a forward pass takes room when it starts, a backward pass or the gradients of
    weights give it back at their end, and the backward pass of a pair before its forward pass.
    """
    counts, kept = [0] * len(chunks), np.zeros(1)
    for item in order:
        both = (item.backward, item.forward) if isinstance(item, Pair) else (item,)
        during = []
        for one in both:
            each = chunks[one.chunk].each
            own = each[one.micro_batch if len(each) > 1 else 0]
            if one.kind == "F":
                counts[one.chunk] += 1
                kept = kept + own
            working = 0.0 if one.kind == "W" else chunks[one.chunk].whole.working
            moment = Moment(tuple(counts), () if one.kind == "W" else (one.chunk,))
            during.append((moment, _fullest(kept, counts, chunks), working))
            if one.kind in FREES:
                counts[one.chunk] -= 1
                kept = kept - own
        after = Moment(tuple(counts))
        yield (*during, (after, _fullest(kept, counts, chunks), 0.0))


def _fullest(kept: Bytes, counts: list[int], chunks: tuple[VariedActivations, ...]) -> float:
    for count, chunk in zip(counts, chunks, strict=True):
        if count and chunk.whole.once.any():
            kept = kept + chunk.whole.once
    return float(kept.max())
