"""The result as `vllm bench serve --save-result --save-detailed` writes its own.

Aggregates are milliseconds, the lists are seconds. Source of the names: vLLM 0.33.0,
vllm/benchmarks/serve.py.
"""

import math
from typing import Any

import numpy as np

from moesim.cost.curves import Array
from moesim.study.serving.findings import ServingFindings
from moesim.study.serving.gap_ranks import std_s
from moesim.study.serving.gaps import Gaps
from moesim.study.serving.metrics import Counted, Quantiles, counted
from moesim.study.serving.token_times import inter_token_s, most_tokens_in_a_second

_FAR_RATE = "inf"

MOST_LISTED = 100_000
"""Requests that are listed one by one at most; requests.parquet has all."""


def bench(result: ServingFindings) -> dict[str, Any]:
    """Return the aggregates, then one entry per request that counts and has finished in each list.

    `itls` are left empty where the run has too many tokens to list or more than one replica.
    Of more than MOST_LISTED requests there are no lists, which `note` then says.
    """
    outcome = result.model.outcome
    workload = result.scenario.serving.workload
    of = counted(outcome.requests, workload.warm_up)
    m = outcome.metrics
    duration = m.duration_s if math.isfinite(m.duration_s) else 0.0
    per_s = 1 / duration if duration else 0.0
    aggregates: dict[str, Any] = {
        "date": "", "endpoint_type": "moesim", "backend": "moesim",
        "label": result.scenario.name, "model_id": result.model.name,
        "tokenizer_id": result.model.name, "num_prompts": m.finished + m.unfinished,
        "request_rate": getattr(workload, "rate", None) or _FAR_RATE,
        "burstiness": getattr(workload, "burstiness", None) or 1.0,
        "max_concurrency": getattr(workload, "in_flight", None),
        "duration": duration, "completed": m.finished, "failed": m.unfinished,
        "total_input_tokens": int(of.prompt.sum()), "total_output_tokens": int(of.output.sum()),
        "request_throughput": m.finished * per_s,
        "request_goodput": m.goodput_requests_per_s,
        "output_throughput": float(of.output.sum()) * per_s,
        "total_token_throughput": float(of.output.sum() + of.prompt.sum()) * per_s,
        "max_output_tokens_per_s": most_tokens_in_a_second(outcome),
        "max_concurrent_requests": _most_at_once(of),
    }  # fmt: skip
    for name, values in (("ttft", of.ttft_s), ("tpot", of.tpot_s)):
        aggregates |= _aggregates(name, values)
    aggregates |= _of_pooled(m.itl_s, outcome.gaps)
    aggregates |= _aggregates("e2el", of.e2e_s)
    if len(of.prompt) > MOST_LISTED:
        note = f"more than {MOST_LISTED:,} requests: requests.parquet lists them"
        return {**aggregates, "note": note}
    itls = inter_token_s(outcome)
    return {**aggregates, **_lists(of), "itls": itls}


def _most_at_once(of: Counted) -> int:
    """Return the most requests in flight at once: an end comes before a start at the same time."""
    if not len(of.finish):
        return 0
    times = np.concatenate([of.finish, of.arrival])
    steps = np.concatenate([np.full(len(of.finish), -1), np.ones(len(of.arrival), dtype=int)])
    return int(np.cumsum(steps[np.lexsort((steps, times))]).max())


def _aggregates(name: str, seconds: Array) -> dict[str, float | None]:
    if not len(seconds):
        return {}
    marks = {"median": 50, "p90": 90, "p95": 95, "p99": 99}
    found = {"mean": float(np.mean(seconds)), "std": float(np.std(seconds))}
    found |= {mark: float(np.percentile(seconds, at)) for mark, at in marks.items()}
    return {f"{mark}_{name}_ms": 1e3 * value for mark, value in found.items()}


def _of_pooled(found: Quantiles, gaps: Gaps | None) -> dict[str, float | None]:
    if not math.isfinite(found.mean):
        return {}
    assert gaps is not None
    marks = {"mean": found.mean, "std": std_s(gaps), "median": found.p50, "p90": found.p90,
             "p95": found.p95, "p99": found.p99}  # fmt: skip
    return {f"{mark}_itl_ms": 1e3 * value for mark, value in marks.items()}


def _lists(of: Counted) -> dict[str, list[Any]]:
    return {
        "input_lens": of.prompt.astype(int).tolist(),
        "output_lens": of.output.astype(int).tolist(),
        "ttfts": of.ttft_s.tolist(),
        "latencies": of.e2e_s.tolist(),
        "start_times": of.arrival.tolist(),
        "queue_times": (of.scheduled - of.arrival).tolist(),
        "errors": [""] * len(of.prompt),
    }
