"""metrics.txt: OpenMetrics text under vLLM's metric names, so that its boards read a simulated run.

Gauges and counters are time series with the simulated seconds as time stamps (for
`promtool tsdb create-blocks-from openmetrics`); histograms are those of the whole run. Names: vLLM
docs/design/metrics.md; the buckets are vLLM's (from memory, unchecked).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from moesim.cost.curves import Array
from moesim.study.serving.gap_ranks import mean_s, shares_up_to
from moesim.study.serving.gaps import columns
from moesim.study.serving.metrics import counted
from moesim.study.serving.series import of_place
from moesim.study.serving.simulate import ServingOutcome
from moesim.study.serving.usage import engine_places

_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
          10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
_BETWEEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
            10.0, 20.0, 40.0, 80.0)  # fmt: skip
_WHOLE = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
          240.0, 480.0, 960.0, 1920.0, 7680.0)  # fmt: skip
_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_GAUGES = {
    "num_requests_running": ("running", "Number of requests in model execution batches."),
    "num_requests_waiting": ("waiting", "Number of requests waiting to be processed."),
    "kv_cache_usage_perc": ("cache_fraction", "KV-cache usage. 1 means 100 percent usage."),
}
_COUNTERS = {
    "prompt_tokens": ("prompt_tokens", "Number of prefill tokens processed."),
    "generation_tokens": ("generated", "Number of generation tokens processed."),
    "num_preemptions": ("preemptions", "Cumulative number of preemption from the engine."),
    "prefix_cache_queries": ("queried", "Prefix cache queries, in queried tokens."),
    "prefix_cache_hits": ("prefix_hit_tokens", "Prefix cache hits, in cached tokens."),
}


def openmetrics(outcome: ServingOutcome) -> str:
    """Return the text; an engine is a replica, or a rank of it that has requests of its own."""
    model = outcome.run.deployment.architecture.name.replace("\\", "\\\\").replace('"', '\\"')
    places = engine_places(outcome.run.pools, outcome.logs)
    rows = [(number, row) for number, one in enumerate(places) for row in of_place(outcome, one)]
    lines = [*_series(rows, model), *_histograms(outcome, model), "# EOF"]
    return "\n".join(lines) + "\n"


def _counted(row: dict[str, Any]) -> dict[str, float]:
    """Return a row of the series by the columns that are shown, with what vLLM derives."""
    return {
        **row,
        "generated": row["decoded_tokens"] + row["first_tokens"],
        "queried": row["prompt_tokens"] + row["prefix_hit_tokens"],
    }


def _series(rows: list[tuple[int, dict[str, Any]]], model: str) -> Iterator[str]:
    for kind, metrics, suffix in (("gauge", _GAUGES, ""), ("counter", _COUNTERS, "_total")):
        for name, (column, about) in metrics.items():
            yield f"# TYPE vllm:{name} {kind}"
            yield f"# HELP vllm:{name} {about}"
            last: dict[int, float] = {}
            for engine, row in rows:
                at = row["time_s"]
                if last.get(engine) == at:
                    continue
                last[engine] = at
                labels = f'{{model_name="{model}",engine="{engine}"}}'
                yield f"vllm:{name}{suffix}{labels} {float(_counted(row)[column])!r} {at!r}"


def _histograms(outcome: ServingOutcome, model: str) -> Iterator[str]:
    of = counted(outcome.requests, outcome.run.scenario.serving.workload.warm_up)
    for name, values, buckets in (
        ("time_to_first_token", of.ttft_s, _FIRST),
        ("request_time_per_output_token", of.tpot_s, _BETWEEN),
        ("e2e_request_latency", of.e2e_s, _WHOLE),
        ("request_queue_time", of.scheduled - of.arrival, _WHOLE),
    ):
        counts = _counts(values, buckets)
        total = float(np.sum(values))
        yield from _histogram(name, (buckets, counts), total, len(values), model)
    gaps = outcome.gaps
    if gaps is not None and gaps.count:
        count = gaps.count
        counts = [round(share * count) for share in shares_up_to(gaps, _BETWEEN)]
        total = mean_s(gaps) * count
        yield from _histogram("inter_token_latency", (_BETWEEN, counts), total, count, model)
    yield from _of_iterations(outcome, model)


def _of_iterations(outcome: ServingOutcome, model: str) -> Iterator[str]:
    """Yield the histogram of tokens that an iteration computes, over all of the run."""
    tokens: list[Array] = [np.zeros(0)]
    steps: list[Array] = [np.zeros(0)]
    for log in outcome.logs:
        rows = columns(log)
        tokens.append((rows["prompt_tokens"] + rows["sequences"]).astype(np.float64))
        steps.append(rows["steps"].astype(np.float64))
    each, weight = np.concatenate(tokens), np.concatenate(steps)
    name, labels = "vllm:iteration_tokens_total", f'model_name="{model}"'
    yield f"# TYPE {name} histogram"
    yield f"# HELP {name} Histogram of number of tokens per engine_step."
    for bucket in _TOKENS:
        under = int(weight[each <= bucket].sum())
        yield f'{name}_bucket{{{labels},le="{float(bucket)!r}"}} {under}'
    yield f'{name}_bucket{{{labels},le="+Inf"}} {int(weight.sum())}'
    yield f"{name}_count{{{labels}}} {int(weight.sum())}"
    yield f"{name}_sum{{{labels}}} {float(np.dot(each, weight))!r}"


def _counts(values: Array, buckets: Sequence[float]) -> list[int]:
    return [int(n) for n in np.searchsorted(np.sort(values), buckets, side="right")]


def _histogram(
    name: str, filled: tuple[Sequence[float], Sequence[int]], total: float, count: int, model: str
) -> Iterator[str]:
    full = f"vllm:{name}_seconds"
    yield f"# TYPE {full} histogram"
    yield f"# UNIT {full} seconds"
    yield f"# HELP {full} Over the requests of the whole run."
    for bucket, under in zip(*filled, strict=True):
        yield f'{full}_bucket{{model_name="{model}",le="{bucket!r}"}} {under}'
    yield f'{full}_bucket{{model_name="{model}",le="+Inf"}} {count}'
    yield f'{full}_count{{model_name="{model}"}} {count}'
    yield f'{full}_sum{{model_name="{model}"}} {total!r}'
