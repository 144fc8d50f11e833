"""Draws conversations: the turns of each, and what their prompts have in common."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from moesim.cost.iteration import PS_PER_S
from moesim.errors import Problem, ScenarioError
from moesim.sim.serving.requests import Requests
from moesim.sim.serving.sessions import Think, thinking
from moesim.spec.serving.lengths import LengthsSpec
from moesim.spec.serving.sessions import SessionsSpec
from moesim.spec.serving.workload import WorkloadSpec

Ints = NDArray[np.int64]

PREFIX_BLOCK = 64
"""Tokens of a block of a conversation that has an id; assumed: fine enough for caches of blocks of
16 to 64 tokens, and 8 bytes of id for 64 tokens."""

LengthsOf = Callable[[LengthsSpec, str, int], Ints]
"""Draws so many lengths of a law, for what it is called."""


def conversations(workload: WorkloadSpec, lengths_of: LengthsOf) -> Requests:
    """Return the requests of conversations, one conversation after the other, without arrivals.

    Raises ScenarioError where `longest` leaves next to nothing of what is drawn.
    """
    spec, count = workload.sessions, workload.requests
    assert spec is not None
    for drawn in (count, 2 * count, 8 * count, 64 * count):
        prompt, output, session = _turns(workload, spec, drawn, lengths_of)
        if spec.longest is not None:
            fits = prompt + output <= spec.longest
            prompt, output, session = prompt[fits], output[fits], session[fits]
        if len(prompt) >= count:
            return _requests(spec, prompt[:count], output[:count], session[:count])
    message = f"leaves fewer than {count} of {64 * count} turns"
    raise ScenarioError([Problem("serving.workload.sessions.longest", message)])


def _turns(
    workload: WorkloadSpec, spec: SessionsSpec, count: int, lengths_of: LengthsOf
) -> tuple[Ints, Ints, Ints]:
    """Return prompts, outputs and conversations of so many turns.

    prompt of turn t = shared prefix + sum over turns before of (new tokens + output) + new tokens.
    """
    assert workload.prompt is not None
    assert workload.output is not None
    ends = np.cumsum(lengths_of(spec.turns, "turns", count))
    session = np.searchsorted(ends, np.arange(count), side="right")
    starts = np.concatenate(([0], ends))[session]
    output = lengths_of(workload.output, "output", count)
    said = np.cumsum(lengths_of(workload.prompt, "prompt", count) + output)
    before = np.concatenate(([0], said))[starts]
    return spec.shared_prefix + said - before - output, output, session


def _requests(spec: SessionsSpec, prompt: Ints, output: Ints, session: Ints) -> Requests:
    """Return the requests, numbered from conversation 0 and turn 0 without gaps."""
    starts = np.flatnonzero(np.diff(session, prepend=-1))
    number = np.cumsum(np.diff(session, prepend=session[0]) != 0)
    turn = np.arange(len(session)) - starts[number]
    none = array("q", bytes(8 * len(prompt)))
    return Requests(
        _column(prompt), _column(output), none,
        prefix=_beginnings(spec, prompt + output, number, starts), prefix_block=PREFIX_BLOCK,
        session=_column(number), turn=_column(turn),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Beginnings:
    """The ids of the full blocks of each turn, made when asked: a million prompts have many.

    Of the prompt and the answer after it, with which the next turn begins.

    First those of the shared beginnings, then each conversation's own: it only grows, so that the
    same place in it is the same block.
    """

    shared: int
    """Blocks of a shared beginning."""
    kinds: int
    """Shared beginnings; conversations take them in turn."""
    session: "array[int]"
    blocks: "array[int]"
    """Full blocks of each prompt with its answer."""
    own: "array[int]"
    """The id of the first block of each conversation behind the shared ones."""

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, request: int, /) -> tuple[int, ...]:
        session, held = self.session[request], self.blocks[request]
        common = session % self.kinds * self.shared
        if held <= self.shared:
            return tuple(range(common, common + held))
        own = self.own[session]
        ids = range(common, common + self.shared), range(own, own + held - self.shared)
        return (*ids[0], *ids[1])


def _beginnings(spec: SessionsSpec, whole: Ints, session: Ints, starts: Ints) -> Beginnings:
    shared = spec.shared_prefix // PREFIX_BLOCK
    blocks = whole // PREFIX_BLOCK
    last = np.concatenate((starts[1:], [len(whole)])) - 1
    ends = spec.prefixes * shared + np.cumsum(np.maximum(0, blocks[last] - shared))
    own = np.concatenate(([spec.prefixes * shared], ends[:-1]))
    columns = _column(session), _column(blocks), _column(own)
    return Beginnings(shared, spec.prefixes, *columns)


def pauses(spec: SessionsSpec, asked: Requests, draw: Generator) -> Think:
    """Return the conversations of `asked`, with a pause before each turn."""
    seconds = np.full(len(asked), spec.think_mean)
    if spec.think == "exponential":
        seconds = draw.exponential(spec.think_mean, len(asked))
    assert asked.session is not None
    return thinking(asked.session, _column(np.rint(seconds * PS_PER_S)))


def _column(values: NDArray[np.int64] | NDArray[np.float64]) -> "array[int]":
    return array("q", values.astype(np.int64).tobytes())
