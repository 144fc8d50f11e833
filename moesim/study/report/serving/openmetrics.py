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
from moesim.study.serving.metrics import counted
from moesim.study.serving.series import series
from moesim.study.serving.simulate import ServingOutcome

_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
          10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
_BETWEEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
            10.0, 20.0, 40.0, 80.0)  # fmt: skip
_WHOLE = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
          240.0, 480.0, 960.0, 1920.0, 7680.0)  # fmt: skip
_GAUGES = {
    "num_requests_running": ("running", "Number of requests in model execution batches."),
    "num_requests_waiting": ("waiting", "Number of requests waiting to be processed."),
    "kv_cache_usage_perc": ("cache_fraction", "KV-cache usage. 1 means 100 percent usage."),
}
_COUNTERS = {
    "prompt_tokens": ("prompt_tokens", "Number of prefill tokens processed."),
    "generation_tokens": ("generated", "Number of generation tokens processed."),
    "num_preemptions": ("preemptions", "Cumulative number of preemption from the engine."),
    "prefix_cache_hits": ("prefix_hit_tokens", "Prefix cache hits, in cached tokens."),
}


def openmetrics(outcome: ServingOutcome) -> str:
    """Return the text."""
    model = outcome.run.deployment.architecture.name.replace("\\", "\\\\").replace('"', '\\"')
    rows = _with_generated(outcome, series(outcome))
    lines = [*_series(rows, model), *_histograms(outcome, model), "# EOF"]
    return "\n".join(lines) + "\n"


def _with_generated(outcome: ServingOutcome, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the tokens put out: those decoded, and the first ones, which come with their prompts."""
    firsts = np.sort(np.asarray(outcome.requests.first))
    firsts = firsts[firsts >= 0]
    several = len(outcome.logs) > 1
    for row in rows:
        came = 0 if several else int(np.searchsorted(firsts, round(row["time_s"] * 1e12), "right"))
        row["generated"] = row["decoded_tokens"] + came
    return rows


def _series(rows: list[dict[str, Any]], model: str) -> Iterator[str]:
    for kind, metrics, suffix in (("gauge", _GAUGES, ""), ("counter", _COUNTERS, "_total")):
        for name, (column, about) in metrics.items():
            yield f"# TYPE vllm:{name} {kind}"
            yield f"# HELP vllm:{name} {about}"
            last: dict[int, float] = {}
            for row in rows:
                at, replica = row["time_s"], row["replica"]
                if last.get(replica) == at:
                    continue
                last[replica] = at
                labels = f'{{model_name="{model}",engine="{replica}"}}'
                yield f"vllm:{name}{suffix}{labels} {float(row[column])!r} {at!r}"


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
