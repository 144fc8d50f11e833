"""The engine of one replica, made of its ranks and pipeline batches."""

from collections.abc import Sequence
from dataclasses import replace

from moesim.cost.iteration import IterationTimes
from moesim.sim.serving.lockstep import Lockstep, fewest_waiting
from moesim.sim.serving.pipelined import Pipelined
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests
from moesim.sim.serving.rules import EngineRules
from moesim.study.serving.resolve import Serving

Engine = Replica | Lockstep | Pipelined


def engine(run: Serving, times: IterationTimes, asked: Requests) -> Engine:
    """Return a replica: its attention data parallel ranks in lockstep, its batches in a pipeline.

    With pp stages as many batches are under way, each with its share of places and cache (vLLM,
    batch queue of pipeline_parallel_size).
    """
    cut = run.deployment.cut
    if cut.pp == 1:
        return _ranks(run.rules, times, asked, cut.dp)
    share = replace(
        run.rules,
        max_sequences=max(1, run.rules.max_sequences // cut.pp),
        blocks=run.rules.blocks // cut.pp,
    )
    return Pipelined([_ranks(share, times, asked, cut.dp) for _ in range(cut.pp)])


def _ranks(
    rules: EngineRules, times: IterationTimes, asked: Requests, ranks: int
) -> Replica | Lockstep:
    if ranks == 1:
        return Replica(rules, times, asked)
    own: Sequence[Replica] = [Replica(rules, times, asked) for _ in range(ranks)]
    return Lockstep(own, times, fewest_waiting, rules.balance_steps)
