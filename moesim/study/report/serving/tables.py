"""The tables of a serving result: requests, time series, the curve, iterations, memory."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from moesim.cost.iteration import PS_PER_S
from moesim.sim.serving.requests import NEVER
from moesim.study.serving.advice import Change
from moesim.study.serving.findings import ServingFindings
from moesim.study.serving.groups import Groups
from moesim.study.serving.pool_findings import PoolServed
from moesim.study.serving.series import series
from moesim.study.serving.shown import engine_defaults, kernels
from moesim.study.serving.simulate import ServingOutcome

Row = dict[str, Any]


def tables(result: ServingFindings) -> dict[str, list[Row]]:
    """Return the tables by the name of their file."""
    return {
        "timeline": series(result.model.outcome),
        "curve": [
            {
                "model": run.name,
                "concurrency": point.concurrency,
                "output_tokens_per_s_per_user": point.output_tokens_per_s_per_user,
                "output_tokens_per_s_per_device": point.output_tokens_per_s_per_device,
                "ttft_p50_s": point.ttft_p50_s,
                "tpot_p50_s": point.tpot_p50_s,
            }
            for run in result.runs
            for point in run.curve
        ],
        "iterations": [
            {
                "model": run.name,
                "pool": pool.run.name,
                "sequences": sequences,
                "context_tokens": run.context_tokens if sequences else 0,
                "prompt_tokens": prompt_tokens,
                "group": name,
                "seconds": seconds,
            }
            for run in result.runs
            for pool in run.pools
            for sequences, prompt_tokens, parts in _iterations(pool)
            for name, seconds in parts.items()
        ],
        "memory": [
            {"model": run.name, "pool": pool.run.name, "part": part, "bytes": size}
            for run in result.runs
            for pool in run.pools
            for part, size in pool.memory.parts_bytes.items()
        ],
        **_when_some("events", [asdict(event) for event in result.model.outcome.events]),
        **_when_some("changes", [_change(one) for one in result.model.changes]),
        "engine": [
            {"model": run.name, **row}
            for run in result.runs
            for row in engine_defaults(run.outcome.run)
        ],
        "kernels": [
            {"model": run.name, **row} for run in result.runs for row in kernels(run.outcome.run)
        ],
    }


def _iterations(pool: PoolServed) -> Iterator[tuple[int, int, Groups]]:
    """Yield sequences that decode, tokens of a prompt, and the groups of such an iteration."""
    for sequences, parts in pool.decode.items():
        yield sequences, 0, parts
    if pool.prompts:
        yield 0, pool.usage.prompt_tokens or 0, pool.prompts


def _when_some(name: str, rows: list[Row]) -> dict[str, list[Row]]:
    return {name: rows} if rows else {}


def _change(change: Change) -> Row:
    return {**asdict(change), "settings": " ".join(change.settings), "fits": change.fits}


def requests(outcome: ServingOutcome) -> dict[str, Any]:
    """Return one entry per request in each column; NaN for times that never came."""
    asked = outcome.requests

    def seconds(name: str) -> Any:
        column = np.asarray(getattr(asked, name), dtype=np.float64)
        return np.where(column == NEVER, np.nan, column / PS_PER_S)

    output = np.asarray(asked.output)
    arrival, first, finish = seconds("arrival"), seconds("first"), seconds("finish")
    several = np.maximum(output - 1, 1)
    return {
        "request": np.arange(len(output)),
        "prompt_tokens": np.asarray(asked.prompt),
        "output_tokens": output,
        "cached_tokens": np.asarray(asked.cached),
        "arrival_s": arrival,
        "scheduled_s": seconds("scheduled"),
        "first_token_s": first,
        "finish_s": finish,
        "queue_s": seconds("scheduled") - arrival,
        "ttft_s": first - arrival,
        "tpot_s": np.where(output > 1, (finish - first) / several, np.nan),
        "e2e_s": finish - arrival,
        "preemptions": np.asarray(asked.preemptions),
        "counts": np.arange(len(output)) >= outcome.run.scenario.serving.workload.warm_up,
    }
