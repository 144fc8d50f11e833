"""Pipeline schedules as data: the order in which a stage runs its forward and backward passes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Action:
    """A pass of one micro-batch through one model chunk of a stage.

    F forward, B backward; or the backward pass in two, I for the gradients of the inputs, which
    other stages wait for, and W for those of the weights.
    """

    kind: Literal["F", "B", "I", "W"]
    micro_batch: int
    chunk: int = 0

    def __str__(self) -> str:
        return f"{self.kind}{self.micro_batch}.{self.chunk}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A forward and a backward pass of two micro-batches that a stage runs as one."""

    forward: Action
    backward: Action

    def __str__(self) -> str:
        return f"{self.forward}&{self.backward}"


Order = tuple[Action | Pair, ...]


def passes(order: Order) -> list[Action]:
    """Return the passes of a stage, the forward pass of a pair first."""
    return [
        one
        for item in order
        for one in ((item,) if isinstance(item, Action) else (item.forward, item.backward))
    ]


def gpipe(stage: int, stages: int, micro_batches: int, chunks: int = 1) -> Order:
    """Return all forward passes, then all backward passes (arXiv 1811.06965, figure 2c)."""
    del stage, stages, chunks
    forward = [Action("F", i) for i in range(micro_batches)]
    return (*forward, *(Action("B", i) for i in reversed(range(micro_batches))))


def one_f_one_b(stage: int, stages: int, micro_batches: int, chunks: int = 1) -> Order:
    """Return the order in which a stage keeps at most `stages - stage` micro-batches in flight.

    Source: PipeDream-Flush, arXiv 2006.09503; Megatron-LM schedules.py.
    """
    del chunks
    ahead = min(stages - stage - 1, micro_batches)
    return alternate(
        [Action("F", i) for i in range(micro_batches)],
        [Action("B", i) for i in range(micro_batches)],
        ahead,
    )


def interleaved(stage: int, stages: int, micro_batches: int, chunks: int) -> Order:
    """Return interleaved 1F1B: `chunks` model chunks per stage, groups of `stages` micro-batches.

    Source: arXiv 2104.04473, section 2.2; Megatron-LM schedules.py. Needs micro-batches in
    multiples of the stages.
    """
    total = micro_batches * chunks
    ahead = min((stages - stage - 1) * 2 + (chunks - 1) * stages, total)
    return alternate(
        [Action("F", *_virtual(k, stages, chunks)) for k in range(total)],
        [Action("B", *_virtual(k, stages, chunks, backward=True)) for k in range(total)],
        ahead,
    )


def _virtual(k: int, stages: int, chunks: int, *, backward: bool = False) -> tuple[int, int]:
    """Return micro-batch and chunk of the k-th pass of an interleaved stage."""
    group, within = divmod(k, stages * chunks)
    chunk, position = divmod(within, stages)
    return group * stages + position, chunks - 1 - chunk if backward else chunk


def alternate(
    forward: list[Action], backward: list[Action], ahead: int, *, pairs: bool = False
) -> Order:
    """Return `ahead` forward passes, then forward and backward in turn or paired, then the rest."""
    order: list[Action | Pair] = [*forward[:ahead]]
    for next_forward, next_backward in zip(forward[ahead:], backward, strict=False):
        order += [Pair(next_forward, next_backward)] if pairs else [next_forward, next_backward]
    return (*order, *backward[len(forward) - ahead :])


SCHEDULES: dict[str, Callable[[int, int, int, int], Order]] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "interleaved": interleaved,
}
"""The schedules by name."""
