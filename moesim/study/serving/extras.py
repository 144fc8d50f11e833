"""What caches, guesses and offloaded experts came to in a run."""

from dataclasses import dataclass

import numpy as np

from moesim.cost.iteration import PS_PER_S
from moesim.cost.serving.offload import missing_experts
from moesim.model.architecture import MoeFfn, layers_of
from moesim.moe.touched import uniform
from moesim.study.serving.pool_findings import PoolServed
from moesim.study.serving.simulate import ServingOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """None where a run has no such thing."""

    prefix_hit_fraction: float | None = None
    """Tokens of prompts that were found in the cache, over all of them, of the requests that
    count."""
    tokens_per_step: float | None = None
    """Tokens that a step of guesses and their check yields each sequence, on average."""
    asked_experts: float | None = None
    """Distinct experts of a layer that a decode step of the run's mean batch asks for."""
    missing_experts: float | None = None
    """Those of them that are not on the devices."""
    offered_requests_per_s: float | None = None
    """Requests per second from the first arrival to the last, of those that count."""


def extras(outcome: ServingOutcome, pools: tuple[PoolServed, ...]) -> Extras:
    """Return what a run came to beside its metrics."""
    run, asked = outcome.run, outcome.requests
    workload = run.scenario.serving.workload
    drafting = run.deployment.drafting
    there, gone = _experts(outcome, pools)
    arrivals = np.asarray(asked.arrival)[workload.warm_up :]
    span = (int(arrivals.max()) - int(arrivals.min())) / PS_PER_S if len(arrivals) else 0.0
    comes = workload.arrivals not in ("closed", "at_once") and workload.sessions is None
    return Extras(
        prefix_hit_fraction=_hits(outcome),
        tokens_per_step=None if drafting is None else float(drafting.expected),
        asked_experts=there, missing_experts=gone,
        offered_requests_per_s=(len(arrivals) - 1) / span if comes and span > 0 else None,
    )  # fmt: skip


def _hits(outcome: ServingOutcome) -> float | None:
    asked, first = outcome.requests, outcome.run.pools[0].engine
    if asked.prefix is None or not first.rules.prefix_caching:
        return None
    warm_up = outcome.run.scenario.serving.workload.warm_up
    total = sum(asked.prompt[warm_up:])
    return sum(asked.cached[warm_up:]) / total if total else None


def _experts(
    outcome: ServingOutcome, pools: tuple[PoolServed, ...]
) -> tuple[float | None, float | None]:
    on, sequences = outcome.run.deployment, pools[-1].usage.sequences
    if on.offload is None or sequences is None:
        return None, None
    ffn = next(x.ffn for x in layers_of(on.architecture.decoder) if isinstance(x.ffn, MoeFfn))
    tokens = float(sequences * on.cut.dp)
    missing = missing_experts(np.array([tokens]), ffn, on.offload)
    return float(uniform(tokens, ffn.num_experts, ffn.top_k)), float(missing[0])
