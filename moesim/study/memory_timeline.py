"""Bytes on one rank of a stage over the first step: what its schedule holds, pass by pass.

Weights, gradients and optimizer states stay; activations of a micro-batch come with its forward
pass and go with the backward pass that needs them, and what a layer at work needs besides comes and
goes with each pass. The peak is that of the report's memory: both follow the same moments.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from moesim.cost.activations import Moment, at_moment
from moesim.cost.memory import StageMemory, stage_activations, with_activations
from moesim.sim.training.moments import after, moments
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
    run, stages = outcome.run, stage_chunks(outcome.run)
    chunks = stage_activations(run.job, stages[stage], outcome.loads)
    always, known = outcome.memory[stage], dict[Moment, StageMemory]()
    found = []
    for start_s, doing, moment in _moments(outcome, stage, len(chunks)):
        if moment not in known:
            kept, working = at_moment(chunks, moment)
            known[moment] = with_activations(always, kept, working, run.software)
        found.append(Level(start_s, doing, moment.held, known[moment]))
    return tuple(found)


def _moments(outcome: Outcome, stage: int, chunks: int) -> Iterator[tuple[float, str, Moment]]:
    """Yield when a stage begins what, and what it is at; waiting in between included."""
    order = stage_orders(outcome.run)[stage]
    track, idle = f"stage {stage} compute", Moment((0,) * chunks)
    slices = [one for one in outcome.slices if one.track == track]
    yield 0.0, "", idle
    end_s, left = 0.0, idle
    for one, during, item in zip(slices, moments(order, chunks), order, strict=False):
        if one.start_s > end_s:
            yield end_s, "", left
        for number, moment in enumerate(during):
            yield one.start_s + number / len(during) * one.duration_s, one.name, moment
        end_s, left = one.start_s + one.duration_s, after(item, during[-1])
    yield end_s, "", idle
