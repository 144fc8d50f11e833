"""Activations that each stage holds over a step, from the passes that take and free them."""

from moesim.cost.memory import stage_memory
from moesim.sim.training.schedules import Pair
from moesim.sim.training.transfers import Done
from moesim.study.outcome import Outcome
from moesim.study.split import stage_chunks


def held_bytes(outcome: Outcome, done: list[list[Done]]) -> list[list[tuple[float, float]]]:
    """Return for every stage when the bytes of its activations change, and to what.

    A forward pass takes them when it starts; they are free when the gradients of weights are made.
    In a pair the backward pass frees layer by layer what the forward pass takes.
    """
    found = []
    for kept, items in zip(_kept_bytes(outcome), done, strict=True):
        held, points = 0.0, [(0.0, 0.0)]
        for ran in items:
            start_s = ran.slice.start_s
            if isinstance(ran.item, Pair):
                held += kept[ran.item.forward.chunk] - kept[ran.item.backward.chunk]
            elif ran.item.kind == "F":
                held += kept[ran.item.chunk]
            elif ran.item.kind in ("B", "W"):
                held -= kept[ran.item.chunk]
                start_s += ran.slice.duration_s
            points.append((start_s, max(0.0, held)))
        found.append(points)
    return found


def _kept_bytes(outcome: Outcome) -> list[list[float]]:
    """Return what a micro-batch keeps in each chunk of each stage."""
    run = outcome.run
    return [
        [
            stage_memory(
                run.job, stage, outcome.loads, {chunk: 1}, run.layout, run.software
            ).activations
            for chunk in range(len(stage))
        ]
        for stage in stage_chunks(run)
    ]
