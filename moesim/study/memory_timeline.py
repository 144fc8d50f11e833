"""Bytes on one rank of a stage over the first step: what its schedule holds, pass by pass.

Weights, gradients and optimizer states stay; activations of a micro-batch come with its forward
pass and go with the backward pass that needs them, and what a layer at work needs besides comes and
goes with each pass. The peak is that of the report's memory: both follow the same moments.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from moesim.cost.activations import Moment, at_moment
from moesim.cost.memory import StageMemory, stage_activations, with_activations
from moesim.cost.pipeline import Chunk
from moesim.sim.training.moments import after, moments
from moesim.sim.training.schedules import Order
from moesim.study.micro_batches import Held, held, stage_held
from moesim.study.outcome import Outcome
from moesim.study.simulate import stage_orders
from moesim.study.split import stage_chunks


@dataclass(frozen=True, slots=True)
class Level:
    """What a stage holds from a time on, until the next level."""

    start_s: float
    doing: str
    """The pass that runs, as in the schedule; nothing while the stage waits."""
    held: tuple[int, ...]
    """Micro-batches of each chunk whose activations are kept."""
    memory: StageMemory


def memory_timeline(outcome: Outcome, stage: int) -> tuple[Level, ...]:
    """Return the levels of `stage` over the first step, in order; the last one ends with it."""
    chunks, found = stage_chunks(outcome.run)[stage], []
    always, software = outcome.memory[stage], outcome.run.software
    known: dict[Held, StageMemory] = {}
    for start_s, doing, now in _moments(outcome, stage, chunks):
        if now not in known:
            known[now] = with_activations(always, now[1], now[2], software)
        found.append(Level(start_s, doing, now[0].held, known[now]))
    return tuple(found)


def _moments(
    outcome: Outcome, stage: int, chunks: list[Chunk]
) -> Iterator[tuple[float, str, Held]]:
    """Yield when a stage begins what, and what it is at; waiting in between included."""
    order = stage_orders(outcome.run)[stage]
    track, idle = f"stage {stage} compute", (Moment((0,) * len(chunks)), 0.0, 0.0)
    slices = [one for one in outcome.slices if one.track == track]
    yield 0.0, "", idle
    end_s, left = 0.0, idle
    for one, during in zip(slices, _held(outcome, chunks, order), strict=False):
        if one.start_s > end_s:
            yield end_s, "", left
        for number, now in enumerate(during[:-1]):
            yield one.start_s + number / (len(during) - 1) * one.duration_s, one.name, now
        end_s, left = one.start_s + one.duration_s, during[-1]
    yield end_s, "", idle


def _held(outcome: Outcome, chunks: list[Chunk], order: Order) -> Iterator[tuple[Held, ...]]:
    """Yield what a stage holds during each item of its order, and last after it."""
    run = outcome.run
    if outcome.varied is not None:
        yield from held(order, stage_held(run, chunks, outcome.varied))
        return
    of = stage_activations(run.job, chunks, outcome.loads)
    known: dict[Moment, Held] = {}
    for item, during in zip(order, moments(order, len(chunks)), strict=True):
        for moment in (*during, after(item, during[-1])):
            if moment not in known:
                known[moment] = (moment, *at_moment(of, moment))
        yield tuple(known[moment] for moment in (*during, after(item, during[-1])))
