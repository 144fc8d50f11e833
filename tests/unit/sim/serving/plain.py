"""Iteration times that are easy to reckon with, and engines on them."""

from typing import Any

from moesim.cost.iteration import PS_PER_S, TabledTimes
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import Requests
from moesim.sim.serving.rules import EngineRules

S = PS_PER_S
"""A second in picoseconds."""


def times(step_s: float = 1.0, token_s: float = 0.0) -> TabledTimes:
    """Return iterations of `step_s`, longer by `token_s` for each token of a prompt."""
    return TabledTimes(
        decode_s=lambda n: ([0, 10**9], [0.0, 0.0]),
        batch_s=lambda tokens, sequences, everyone: step_s,
        attend_s=lambda tokens, past: token_s * tokens,
    )


def rules(**changes: Any) -> EngineRules:
    """Return rules with room for everything but what `changes` says."""
    plain: dict[str, Any] = {"max_sequences": 100, "token_budget": 1000, "blocks": 10**6}
    return EngineRules(**(plain | changes))


def replica(asked: Requests, of: TabledTimes | None = None, **changes: Any) -> Replica:
    """Return a replica for these requests."""
    return Replica(rules(**changes), of or times(), asked)


def seconds(column: Any) -> list[float]:
    """Return a column of times in seconds."""
    return [one / S for one in column]
