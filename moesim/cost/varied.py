"""Passes whose time differs from micro-batch to micro-batch, since each routes its own tokens.

A pass is priced exactly at two knots: all its layers as in their most evenly spread micro-batch,
and all as in the one whose fullest rank has most. In between it takes

    t(u) = t(low) + u (t(high) - t(low)),   u = sum(d w) / sum(d)

over its MoE layers, w in [0, 1] how far the imbalance of a layer in this micro-batch lies between
its lowest and its highest, d what the layer's forward pass takes longer at the highest. Each layer
waits for its own fullest rank, so layers add up. Passes in pairs, where a forward pass with u runs
beside a backward pass with v, are bilinear in (u, v) between four exact ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.cost.pipeline import Chunk
from moesim.cost.pricing import Machine
from moesim.cost.stage import Beside, beside_exchanges, joint_passes, paced_forward
from moesim.cost.times import Part, PassCost, StageCost
from moesim.cost.work import Block, Job, Loads, blocks, mtp_number

Values = NDArray[np.float64]
Chunks = tuple[int, int]
"""Those of the forward and of the backward pass of a pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariedCost:
    """The times of a stage at both knots, and where between them its micro-batches lie."""

    low: StageCost
    high: StageCost
    crossed: dict[Chunks, tuple[float, float]]
    """Seconds of the pairs in use: forward pass high and backward pass low, and the other way."""
    heights: tuple[Values, ...]
    """[chunk][micro-batches] u."""


def crossed_s(
    low: StageCost, high: StageCost, used: Iterable[Chunks], on: Machine, overlap: bool
) -> dict[Chunks, tuple[float, float]]:
    """Return the seconds of pairs of these chunks of which one pass is at each knot."""

    def seconds(one: StageCost, two: StageCost, chunks: Chunks) -> float:
        forward, backward = one.forward[chunks[0]], two.backward[chunks[1]]
        return joint_passes((forward,), (backward,), on, overlap)[0][0].seconds

    return {of: (seconds(high, low, of), seconds(low, high, of)) for of in used}


def pass_heights(
    job: Job, chunk: Chunk, loads: tuple[Loads, Loads], of_layer: dict[int, Values], on: Machine
) -> Values | None:
    """Return u of each micro-batch in a chunk, `loads` at both knots; None without experts."""
    beside = beside_exchanges(job, on)
    knots = (blocks(job, chunk, one) for one in loads)
    pairs = [both for both in zip(*knots, strict=True) if both[0].rank_rows]
    longer = [
        max(0.0, _seconds(high, on, beside) - _seconds(low, on, beside)) for low, high in pairs
    ]
    numbers = moe_numbers(job, chunk, loads[0])
    if not numbers:
        return None
    total = sum(longer)
    weights = [one / total for one in longer] if total > 0 else [1 / len(longer)] * len(longer)
    found = [weight * of_layer[n] for weight, n in zip(weights, numbers, strict=True)]
    return np.asarray(np.sum(found, axis=0))


def moe_numbers(job: Job, chunk: Chunk, loads: Loads) -> list[int]:
    """Return the numbers of a chunk's layers with experts, in the order of its blocks."""
    modules = (mtp_number(job.architecture, n) for n in range(chunk.mtp_layers))
    return [n for n in (*(one.number for one in chunk.layers), *modules) if n in loads]


def _seconds(block: Block, on: Machine, beside: Beside) -> float:
    parts, _ = paced_forward(block, on, beside)
    return sum(part.seconds for part in parts)


def between(low: float, high: float, u: float) -> float:
    """Return what lies between two knots."""
    return low + u * (high - low)


def pair_s(cost: VariedCost, chunks: Chunks, u: float, v: float) -> float:
    """Return the seconds of a forward pass at u beside a backward pass at v, of these chunks."""
    forward, backward = chunks
    low, high = (one.joint[forward][backward].seconds for one in (cost.low, cost.high))
    high_low, low_high = cost.crossed[chunks]
    corner = high - high_low - low_high + low
    return low + u * (high_low - low) + v * (low_high - low) + u * v * corner


def mean_cost(cost: VariedCost) -> StageCost:
    """Return the times of a stage in the mean over its micro-batches, part by part."""
    means = tuple(float(one.mean()) if len(one) else 0.0 for one in cost.heights)

    def mixed(of: str) -> tuple[PassCost, ...]:
        both = zip(getattr(cost.low, of), getattr(cost.high, of), means, strict=False)
        return tuple(_mixed(low, high, u) for low, high, u in both)

    return replace(
        cost.low,
        forward=mixed("forward"),
        backward=mixed("backward"),
        inputs=mixed("inputs"),
        weights=mixed("weights"),
        joint=tuple(
            tuple(
                _mixed(low, high, (means[forward] + means[backward]) / 2)
                for backward, (low, high) in enumerate(zip(*rows, strict=True))
            )
            for forward, rows in enumerate(zip(cost.low.joint, cost.high.joint, strict=True))
        ),
    )


def _mixed(low: PassCost, high: PassCost, u: float) -> PassCost:
    """Return the pass between two knots; where their parts differ, the nearer one's, to scale."""
    seconds = between(low.seconds, high.seconds, u)
    if [_kind(part) for part in low.parts] == [_kind(part) for part in high.parts]:
        parts = tuple(
            replace(one, seconds=between(one.seconds, two.seconds, u))
            for one, two in zip(low.parts, high.parts, strict=True)
        )
    else:
        near = low if u < 0.5 else high
        scale = seconds / near.seconds if near.seconds else 1.0
        parts = tuple(replace(part, seconds=part.seconds * scale) for part in near.parts)
    return replace(low, parts=parts, seconds=seconds, host_s=between(low.host_s, high.host_s, u))


def _kind(part: Part) -> tuple[str, str, bool]:
    return part.stream, part.name, part.late
