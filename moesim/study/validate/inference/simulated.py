"""A row simulated: what it measures of requests, by the names that columns have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.iteration import PS_PER_S
from moesim.sim.serving.open_loop import serve, serve_closed
from moesim.sim.serving.requests import NEVER, Requests
from moesim.sim.serving.rules import EngineRules
from moesim.study.serving.build import engine
from moesim.study.serving.host import as_clients_see
from moesim.study.validate.inference.asked import Asked
from moesim.study.validate.inference.deployment import Served
from moesim.study.validate.skipped import SkippedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Seconds of each request of a run, and its rates."""

    ttft: Array
    tpot: Array
    e2e: Array
    output: Array
    """Tokens that came out of each request."""
    span_s: float
    served: Served

    @property
    def output_rate(self) -> float:
        """Tokens per second that came out of all replicas."""
        return float(self.output.sum()) / self.span_s * self.served.replicas


def simulated(served: Served, asked: Asked) -> Run:
    """Return how the requests of a row fare; SkippedError where they do not fit."""
    todo = asked.requests
    longest = max(p + o for p, o in zip(todo.prompt, todo.output, strict=True))
    rules = served.rules
    if rules.blocks * rules.block_tokens < longest:
        held = rules.blocks * rules.block_tokens
        raise SkippedError(f"does not fit: the cache holds {held:,} tokens, a request {longest:,}")
    rules = built_for(rules, todo)
    server = engine(replace(served.run, rules=rules), served.times, todo)
    if asked.in_flight is None:
        serve(server, todo)
    else:
        serve_closed(server, todo, asked.in_flight)
    as_clients_see(todo, served.host)
    return measured(served, asked, todo.first)


def built_for(rules: EngineRules, todo: Requests) -> EngineRules:
    """Return the rules of an engine that takes whole prompts: it is built for the longest."""
    least = max(todo.prompt) + min(rules.max_sequences, len(todo))
    if rules.batching != "whole_prompts" or least <= rules.token_budget:
        return rules
    return replace(rules, token_budget=least)


def measured(served: Served, asked: Asked, seen_first: Sequence[int]) -> Run:
    """Return what clients saw of a run whose first tokens reached them at these times."""
    todo = asked.requests
    arrival, first, finish = (
        np.asarray(column, dtype=np.float64) for column in (todo.arrival, seen_first, todo.finish)
    )
    output = np.asarray(todo.output, dtype=np.float64)
    if (finish == NEVER).any():
        raise SkippedError("not all requests finish: they do not fit")
    return Run(
        ttft=(first - arrival) / PS_PER_S,
        tpot=(finish - first) / PS_PER_S / np.maximum(1.0, output - 1),
        e2e=(finish - arrival) / PS_PER_S,
        output=output,
        span_s=float(finish.max() - arrival.min()) / PS_PER_S,
        served=served,
    )


def predictions(run: Run) -> dict[str, float]:
    """Return the figures of a run by the names that columns of case files have."""
    tokens = np.maximum(1.0, run.output - 1)
    itl = float((run.tpot * tokens).sum() / tokens.sum())
    rate = run.output_rate
    per_device = rate / run.served.devices
    requests_s = len(run.output) / run.span_s * run.served.replicas
    found = {
        "ttft_ms": 1e3 * float(run.ttft.mean()), "tpot_ms": 1e3 * float(run.tpot.mean()),
        "itl_ms": 1e3 * itl, "e2e_ms": 1e3 * float(run.e2e.mean()),
        "latency_ms": 1e3 * float(run.e2e.mean()), "mean_latency_s": float(run.e2e.mean()),
        "output_tokens_s": rate, "total_output_tokens_per_s": rate, "offline_tokens_s": rate,
        "output_tokens_s_per_gpu": per_device, "output_tokens_per_s_per_gpu": per_device,
        "output_tokens_s_per_gpu_max": per_device,
        "requests_s": requests_s, "offline_samples_s": requests_s,
        "duration_s": run.span_s,
    }  # fmt: skip
    for name in ("ttft", "tpot", "itl", "e2e", "latency"):
        found[f"{name}_mean_ms"] = found[f"{name}_ms"]
    for name, values in (("ttft", run.ttft), ("e2e", run.e2e), ("tpot", run.tpot)):
        for mark in (50, 90, 95, 99):
            found[f"{name}_p{mark}_ms"] = 1e3 * float(np.percentile(values, mark))
    return found
