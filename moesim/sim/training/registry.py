"""The pipeline schedules by the names that scenarios give them."""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from moesim.cost.activations import Moment
from moesim.sim.training.dualpipe import dualpipe, dualpipe_v
from moesim.sim.training.joint import joined
from moesim.sim.training.moments import fullest_moments
from moesim.sim.training.schedules import SCHEDULES, Order
from moesim.sim.training.zero_bubble import zb_h1, zb_h2, zb_v

SPLIT: dict[str, Callable[[int, int, int, int], Order]] = {
    "zb_h1": zb_h1,
    "zb_h2": zb_h2,
    "zb_v": zb_v,
    "dualpipe": dualpipe,
    "dualpipe_v": dualpipe_v,
}
"""Schedules that run weight gradients apart."""

ROUTES: dict[str, Literal["loop", "two_ways", "v"]] = {
    "dualpipe": "two_ways",
    "dualpipe_v": "v",
    "zb_v": "v",
}
"""How the chunks follow each other, where they do not go round the stages in a loop."""


@lru_cache(maxsize=256)
def stage_order(name: str, stage: int, stages: int, size: tuple[int, int], pairs: bool) -> Order:
    """Return what a stage does; `size` is micro-batches and chunks, `pairs` joins passes."""
    if name in SPLIT:
        return SPLIT[name](stage, stages, *size)
    if pairs:
        return joined(name, stage, stages, *size)
    return SCHEDULES[name](stage, stages, *size)


@lru_cache(maxsize=256)
def stage_moments(
    name: str, stage: int, stages: int, size: tuple[int, int], pairs: bool
) -> tuple[Moment, ...]:
    """Return the moments among which a stage is at its fullest.

    But for gpipe it holds no more after its first few groups of micro-batches: four pipelines'
    worth decide.
    """
    micro_batches, chunks = size
    if name != "gpipe":
        micro_batches = min(micro_batches, 4 * stages)
    order = stage_order(name, stage, stages, (micro_batches, chunks), pairs)
    return fullest_moments(order, 2 if name in ROUTES else chunks)
