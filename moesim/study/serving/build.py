"""The engine of one replica, made of its ranks and pipeline batches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from moesim.cost.iteration import IterationTimes
from moesim.cost.serving.deployment import Deployment
from moesim.sim.serving.lockstep import Lockstep, fewest_waiting
from moesim.sim.serving.pipelined import Pipelined
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests
from moesim.sim.serving.rules import EngineRules

Engine = Replica | Lockstep | Pipelined


class Ruled(Protocol):
    """A run, or a pool's engine: how its replicas are cut, and their rules."""

    @property
    def deployment(self) -> Deployment:
        """The model on its devices."""
        ...

    @property
    def rules(self) -> EngineRules:
        """The engine's limits."""
        ...


def engine(
    run: Ruled, times: IterationTimes, asked: Requests, *, one_by_one: bool = False
) -> Engine:
    """Return a replica: its attention data parallel ranks in lockstep, its batches in a pipeline.

    `one_by_one`: no decode steps are skipped.

    With pp stages as many batches are under way, each with its share of places and cache (vLLM,
    batch queue of pipeline_parallel_size).
    """
    cut = run.deployment.cut
    if cut.pp == 1:
        return _ranks(run.rules, times, asked, cut.dp, one_by_one)
    share = replace(
        run.rules,
        max_sequences=max(1, run.rules.max_sequences // cut.pp),
        blocks=run.rules.blocks // cut.pp,
    )
    return Pipelined([_ranks(share, times, asked, cut.dp, one_by_one) for _ in range(cut.pp)])


def _ranks(
    rules: EngineRules, times: IterationTimes, asked: Requests, ranks: int, one_by_one: bool
) -> Replica | Lockstep:
    if ranks == 1:
        return Replica(rules, times, asked, one_by_one)
    own: Sequence[Replica] = [Replica(rules, times, asked, one_by_one) for _ in range(ranks)]
    return Lockstep(own, times, fewest_waiting, rules.balance_steps)
