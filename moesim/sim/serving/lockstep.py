"""Attention data parallel ranks: each has its own requests, and all run every layer together.

An iteration lasts as long as its fullest rank's attention and dense layers, and as the experts take
for the tokens of all; a rank without work goes along. Between two changes on any rank steps are
skipped as on a single one.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from moesim.cost.iteration import (
    IterationTimes,
    Lines,
    floored,
    raised,
    step_ps,
    steps_ps,
    steps_until,
)
from moesim.sim.serving.replica import Plan, Replica

_ENDLESS = 1 << 60
"""More steps than there are."""

Busy = tuple[int, int, int, Lines]
"""A rank that decodes: its number, tokens in its cache, sequences, and their attention."""


@dataclass(slots=True)
class Joint:
    """What all ranks do next, and when that has ended."""

    plans: list[Plan | None]
    steps: int
    ends: int
    lines: Lines | None = None
    """Of the fullest rank, where all decode."""
    fullest: int = 0
    waits: bool = False
    """Whether prompts that could be computed wait for those of other ranks."""


@dataclass(slots=True)
class Lockstep:
    """Ranks of one replica; looks like a replica from outside."""

    ranks: Sequence[Replica]
    times: IterationTimes
    choose: Callable[[Sequence[Replica], int], int]
    """Which rank a request goes to that comes at a time."""
    patience: int = 0
    """Steps for which prompts wait until all ranks have some, so that they are computed together
    (TensorRT-LLM, attention_dp_config: enable_balance, timeout_iters)."""
    waited: int = 0
    """Steps for which they have."""
    now: int = 0
    finished: list[int] = field(default_factory=list)
    finished_on: list[int] = field(default_factory=list)
    """Ranks on which those finished."""
    plan: Joint | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no rank has anything to do."""
        return all(rank.is_idle for rank in self.ranks)

    @property
    def rejected(self) -> list[int]:
        """Requests that could never be served here."""
        return [request for rank in self.ranks for request in rank.rejected]

    def submit(self, request: int, at: int, put_out: int = 0) -> bool:
        """Queue a request at the rank chosen, at a time up to which all were advanced.

        False: it never fits.
        """
        if self.is_idle:
            self.now = max(self.now, at)
        self.plan = None
        return self.ranks[self.choose(self.ranks, at)].submit(request, self.now, put_out)

    def touch(self, at: int) -> None:
        """Advance to a time at which something from outside changes what may be planned."""
        self.advance(at)
        self.now = max(self.now, at)
        self.plan = None

    def next_change(self) -> int | None:
        """Return when something ends next if nothing is submitted before; None when idle."""
        if self.plan is None:
            self.plan = self._decide()
        return None if self.plan is None else self.plan.ends

    def advance(self, until: int) -> None:
        """Carry out all iterations that begin before `until`."""
        while self.now < until:
            joint = self.plan or self._decide()
            self.plan = None
            if joint is None:
                return
            if joint.lines is not None and joint.ends > until:
                joint = self._cut(joint, until)
            self._carry_out(joint)

    def _decide(self) -> Joint | None:
        plans, now, most, waits = [], self.now, _ENDLESS, False
        for rank in self.ranks:
            rank.now = now
            plan = rank.plan or _planned(rank)
            plans.append(plan)
            if plan is not None:
                waits = waits or bool(plan.chunks)
                most = min(most, plan.steps)
        if most == _ENDLESS:
            return None
        if waits:
            if not self._patience(plans):
                return self._mixed(plans)
            most = 1  # after each step there may be no room for a prompt any more
            plans = [rank.decoding_plan() for rank in self.ranks]
        joint = self._decoding(plans, most)
        joint.waits = waits
        return joint

    def _patience(self, plans: list[Plan | None]) -> int:
        """Return for how many steps prompts wait; 0 where all ranks have some or nobody decodes."""
        together = all(plan is not None and plan.chunks for plan in plans)
        if together or not any(rank.running for rank in self.ranks):
            return 0
        return max(0, self.patience - self.waited)

    def _mixed(self, plans: list[Plan | None]) -> Joint:
        """One iteration: ranks without prompts decode beside it, where their policy lets them."""
        attention = tokens = sequences = everyone = 0
        for rank, plan in zip(self.ranks, plans, strict=True):
            if plan is None:
                continue
            running = len(rank.running) if plan.decodes else 0
            own = self.times.chunks_ps([(size, past) for _, size, past in plan.chunks])
            if running:
                own += step_ps(self.times.attention(running), rank.cached + running)
            attention = max(attention, own)
            computed = running + sum(size for _, size, _ in plan.chunks)
            tokens, everyone = max(tokens, computed), everyone + computed
            sequences = max(sequences, running + len(plan.chunks))
        took = attention + self.times.common_ps(tokens, sequences, everyone)
        ends = self.now + max(took, self.times.least_ps(sequences))
        return Joint(plans, 1, ends)

    def _decoding(self, plans: list[Plan | None], steps: int) -> Joint:
        """Steps in which the rank that is fullest at first stays the fullest."""
        counts = [len(rank.running) for rank in self.ranks]
        most = max(counts)
        common = self.times.common_ps(most, most, sum(counts))
        busy = self._busy(counts)
        fullest = _fullest(busy, 0)
        if steps > 1 and _fullest(busy, steps - 1) != fullest:
            low, high = 1, steps
            while low < high:
                middle = (low + high + 1) // 2
                alike = _fullest(busy, middle - 1) == fullest
                low, high = (middle, high) if alike else (low, middle - 1)
            steps = low
        rank = self.ranks[fullest]
        growth = len(rank.running)
        lines = floored(raised(self.times.attention(growth), common), self.times.least_ps(most))
        took = steps_ps(lines, rank.cached + growth, growth, steps)
        return Joint(plans, steps, self.now + took, lines, fullest)

    def _busy(self, counts: Sequence[int]) -> list[Busy]:
        """Return the ranks that decode, with the lines of their attention."""
        attention = self.times.attention
        return [
            (number, self.ranks[number].cached, running, attention(running))
            for number, running in enumerate(counts)
            if running
        ]

    def _cut(self, joint: Joint, until: int) -> Joint:
        assert joint.lines is not None
        rank = self.ranks[joint.fullest]
        growth = len(rank.running)
        steps, took = steps_until(
            joint.lines, rank.cached + growth, growth, most=joint.steps, span_ps=until - self.now
        )
        ends = self.now + took
        return Joint(joint.plans, steps, ends, joint.lines, joint.fullest, joint.waits)

    def _carry_out(self, joint: Joint) -> None:
        steps, ends = joint.steps, joint.ends
        for number, (rank, plan) in enumerate(zip(self.ranks, joint.plans, strict=True)):
            if plan is not None:
                rank.carry_out(plan, steps, ends)
                kept = rank.plan
                if kept is not None:
                    kept.steps -= steps
                    if kept.steps <= 0:
                        rank.plan = None
                if rank.finished:
                    self.finished += rank.finished
                    self.finished_on += [number] * len(rank.finished)
                    rank.finished.clear()
        self.now = joint.ends
        self._count_waiting(joint)

    def _count_waiting(self, joint: Joint) -> None:
        """Prompts wait from the first step in which one could have been computed."""
        if joint.lines is None:
            self.waited = 0
        elif joint.waits:
            self.waited += joint.steps


def _fullest(busy: Sequence[Busy], later: int) -> int:
    """Return the rank whose attention is longest so many steps later, the first of equals."""
    longest, found, steps = -1, 0, later + 1
    for number, held, running, lines in busy:
        cached = held + running * steps
        at = bisect_right(lines.knots, cached) - 1
        took = lines.starts[at] + lines.slopes[at] * cached  # step_ps, quicker
        if took > longest:
            longest, found = took, number
    return found


def _planned(rank: Replica) -> Plan | None:
    """Return what a rank does next; kept where it only decodes, until something changes on it."""
    if rank.is_idle:
        return None
    plan = rank.next_plan()
    if not (rank.queue or rank.computed):
        rank.plan = plan
    return plan


def fewest_waiting(ranks: Sequence[Replica], at: int) -> int:
    """Return the rank with the lowest 4 * waiting + running (vLLM, v1/engine/core_client.py)."""
    scores = [4 * len(rank.queue) + rank.placed(at) for rank in ranks]
    return scores.index(min(scores))
