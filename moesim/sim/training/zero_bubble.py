"""Schedules that run weight gradients apart from the gradients that other stages wait for."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from moesim.sim.training.schedules import Action, Order


def zb_h1(stage: int, stages: int, micro_batches: int, chunks: int = 1) -> Order:
    """Return ZB-H1: 1F1B whose weight gradients follow `stage` micro-batches late, in the bubbles.

    Bubble (p - 1)(f + b - w), with b the gradients of inputs and w those of weights; every stage
    holds as much as the first of 1F1B. Holds for p micro-batches or more and w <= min(f, b).
    Source: Qi et al., arXiv 2401.10241, section 2 and table 2.
    """
    del chunks
    return _handcrafted(stages - stage - 1, stage, micro_batches)


def zb_h2(stage: int, stages: int, micro_batches: int, chunks: int = 1) -> Order:
    """Return ZB-H2: twice as many forward passes ahead fill the bubble before the first backward.

    A stage's own bubble, from its first pass to its last, is (p - 1)(f + b - 2w), none where all
    passes take equally long; stages end as far apart as they begin, which a step only gains from
    without a wait for the norm of all stages (optimizer.post_validation). Holds up to 2p - 1
    micro-batches. Source: Qi et al., arXiv 2401.10241, section 2, figure 3 and table 2.
    """
    del chunks
    return _handcrafted(2 * (stages - stage - 1), 2 * stage, micro_batches)


def _handcrafted(ahead: int, late: int, micro_batches: int) -> Order:
    """Return `ahead` forward passes, then F, I and, `late` micro-batches behind, W in turn."""
    ahead = min(ahead, micro_batches)
    order = [Action("F", i) for i in range(ahead)]
    for i in range(micro_batches):
        order += [Action("F", ahead + i)] if ahead + i < micro_batches else []
        order.append(Action("I", i))
        order += [Action("W", i - late)] if i >= late else []
    done = max(0, micro_batches - late)
    return (*order, *(Action("W", i) for i in range(done, micro_batches)))


def zb_v(stage: int, stages: int, micro_batches: int, chunks: int = 2) -> Order:
    """Return ZB-V: two chunks per stage in a V, as dualpipe_v's, without pairs.

    Chunk 0 of stage s is number s of the network, chunk 1 number 2 p - 1 - s. No bubble inside a
    stage where all passes take equally long; holds as much as 1F1B, p micro-batches of a stage.
    Needs 2 p - 1 micro-batches. Source: Qi et al., arXiv 2401.10241, section 6; PyTorch,
    torch/distributed/pipelining/schedules.py, ScheduleZBVZeroBubble.
    """
    del chunks
    run = _Fold()
    run.forward(0, 2 * (stages - stage) - 1)
    for _ in range(stage):
        run.forward(1)
        run.forward(0)
    for _ in range(stages - stage):
        run.forward(1)
        run.whole_backward(1)
    while run.begun(1) < micro_batches:
        run.forward(0, min(1, micro_batches - run.begun(0)))
        run.whole_backward(0)
        run.forward(1)
        run.whole_backward(1)
    for _ in range(stage):
        run.inputs(0)
        run.inputs(1)
    for _ in range(stages - stage):
        run.inputs(0)
        run.weights(0)
    run.weights(1, micro_batches - run.done["W", 1])
    run.weights(0, micro_batches - run.done["W", 0])
    return tuple(run.order)


@dataclass(slots=True)
class _Fold:
    """Writes down the passes of a stage with two chunks."""

    order: list[Action] = field(default_factory=list)
    done: Counter[tuple[str, int]] = field(default_factory=Counter)

    def begun(self, chunk: int) -> int:
        return self.done["F", chunk]

    def forward(self, chunk: int, times: int = 1) -> None:
        self._add("F", chunk, times)

    def inputs(self, chunk: int) -> None:
        self._add("I", chunk, 1)

    def weights(self, chunk: int, times: int = 1) -> None:
        self._add("W", chunk, times)

    def whole_backward(self, chunk: int) -> None:
        self.inputs(chunk)
        self.weights(chunk)

    def _add(self, kind: Literal["F", "I", "W"], chunk: int, times: int) -> None:
        for _ in range(times):
            self.order.append(Action(kind, self.done[kind, chunk], chunk))
            self.done[kind, chunk] += 1
