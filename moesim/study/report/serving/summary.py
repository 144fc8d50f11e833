"""summary.json of a serving result: every figure under a name that ends in its unit."""

import math
from dataclasses import asdict
from typing import Any

from moesim.model.parameters import active_params, total_params
from moesim.study.report.serving import words
from moesim.study.serving.dialects import measures
from moesim.study.serving.extras import extras
from moesim.study.serving.findings import Served, ServingFindings
from moesim.study.serving.metrics import counted
from moesim.study.serving.pool_findings import PoolServed
from moesim.study.serving.shown import engine_values, kernels, pool_engine
from moesim.version import __version__


def summary(result: ServingFindings) -> dict[str, Any]:
    """Return the summary of a result: plain data, in a fixed order; None for what never came."""
    scenario = result.scenario
    found: dict[str, Any] = _plain(
        {
            "moesim_version": __version__,
            "kind": "serving",
            "name": scenario.name,
            "description": scenario.description,
            "seed": scenario.seed,
            "fits": result.fits,
            "meets_slo": result.model.outcome.metrics.meets_slo,
            "metric_dialect": result.dialect,
            "model": _served(result.model, result.dialect),
            "baselines": [
                {"relation": one.relation, **_served(one, result.dialect)}
                for one in result.baselines
            ],
            "assumptions": words.assumptions(result),
            "scenario": scenario.model_dump(mode="json"),
        }
    )
    return found


def _served(run: Served, dialect: str) -> dict[str, Any]:
    serving = run.outcome.run
    on, machines = serving.deployment, serving.cluster
    kept = counted(run.outcome.requests, serving.scenario.serving.workload.warm_up)
    return {
        "name": run.name,
        "source": on.architecture.source,
        "total_params": total_params(on.architecture),
        "active_params": active_params(on.architecture),
        "cluster": machines.name,
        "accelerator": machines.device.name,
        "devices": machines.topology.devices,
        "engine": engine_values(serving),
        "metrics": asdict(run.outcome.metrics),
        "replicas": None if run.outcome.cluster is None else asdict(run.outcome.cluster),
        "latencies": [
            {"name": one.name, "definition": one.definition, "seconds": asdict(one.quantiles)}
            for one in measures(dialect, kept, run.outcome.metrics.itl_s)
        ],
        "beside_decoding": asdict(extras(run.outcome, run.pools)),
        "memory": {"fits": run.fits, **asdict(run.memory)},
        "changes_that_would_fit": [{**asdict(one), "fits": one.fits} for one in run.changes],
        "pools": [_pool(pool) for pool in run.pools],
        "iteration_s_by_group": {str(batch): parts for batch, parts in run.groups.items()},
        "iteration_context_tokens": run.context_tokens,
        "curve": [asdict(point) for point in run.curve],
        "kernels": kernels(serving),
    }


def _pool(pool: PoolServed) -> dict[str, Any]:
    return {
        "name": pool.run.name,
        "replicas": pool.run.replicas,
        "devices_per_replica": pool.run.engine.width,
        "router": pool.run.router,
        "engine": pool_engine(pool.run),
        "usage": asdict(pool.usage),
        "memory": {"fits": pool.memory.fits, **asdict(pool.memory)},
        "decode_iteration_s_by_group": {str(n): parts for n, parts in pool.decode.items()},
        "prompt_iteration_s_by_group": pool.prompts,
    }


def _plain(value: Any) -> Any:
    """Return `value` with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
