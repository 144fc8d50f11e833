"""summary.json: every figure of a result under a name that ends in its unit."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from moesim.model.parameters import active_params, routed_expert_params, total_params
from moesim.moe.micro_batches import VariedLoad
from moesim.study.findings import Findings
from moesim.study.outcome import Outcome
from moesim.study.report import assumptions, campaign_figures
from moesim.study.report.footing import footing
from moesim.study.report.routing_tables import expected_columns
from moesim.study.routing import expected_drop, moe_layers, router
from moesim.version import __version__


def summary(result: Findings) -> dict[str, Any]:
    """Return the summary of a result: plain data, in a fixed order."""
    scenario = result.scenario
    model = outcome_summary(result.outcome)
    return {
        "moesim_version": __version__,
        "name": scenario.name,
        "description": scenario.description,
        "seed": scenario.seed,
        "fits": result.fits,
        "model": model,
        "baselines": [
            {
                "relation": one.relation,
                "comparison": comparison(result.outcome, one.outcome),
                **outcome_summary(one.outcome),
            }
            for one in result.baselines
        ],
        "campaign": campaign_figures.summary(result.campaign),
        "changes_that_would_fit": [asdict(change) for change in result.changes],
        "assumptions": assumptions.statements(result.outcome, model["operator_times"]["origins"]),
        "scenario": scenario.model_dump(mode="json"),
    }


def outcome_summary(outcome: Outcome) -> dict[str, Any]:
    """Return the figures of one simulated run."""
    run, layout = outcome.run, outcome.run.layout
    architecture = run.architecture
    return {
        "name": architecture.name,
        "source": architecture.source,
        "total_params": total_params(architecture),
        "active_params": active_params(architecture),
        "routed_expert_params": routed_expert_params(architecture),
        "cluster": run.cluster.name,
        "cluster_description": run.cluster.description,
        "accelerator": run.cluster.device.name,
        "accelerator_vendor": run.cluster.device.vendor,
        "accelerator_description": run.cluster.device.description,
        "software": run.software.name,
        "software_description": run.software.description,
        "devices": layout.devices,
        "layout": {**asdict(layout), "edp": layout.edp},
        "micro_batches": run.micro_batches,
        "metrics": asdict(outcome.metrics),
        "breakdown": [asdict(share) for share in outcome.breakdown],
        "memory": memory_summary(outcome),
        "routing": routing_summary(outcome),
        "operator_times": asdict(footing(outcome)),
    }


def memory_summary(outcome: Outcome) -> dict[str, Any]:
    """Return the memory of the fullest rank, and what is left or missing."""
    stages = [stage.total for stage in outcome.memory]
    fullest = stages.index(max(stages))
    stage = outcome.memory[fullest]
    return {
        "fits": outcome.fits,
        "fullest_stage": fullest,
        "peak_bytes": outcome.peak_bytes,
        "capacity_bytes": outcome.capacity_bytes,
        "missing_bytes": max(0.0, outcome.peak_bytes - outcome.capacity_bytes),
        "parts_bytes": {field.name: getattr(stage, field.name) for field in fields(stage)},
    }


def routing_summary(outcome: Outcome) -> dict[str, Any] | None:
    """Return what the router did in the first micro-batch of the first step; None without experts.

    Where micro-batches differ, `micro_batches` says what it did in all of them.
    """
    if not outcome.loads:
        return None
    loads = list(outcome.loads.values())
    routed = sum(load.routed for load in loads)
    dropped = sum(load.dropped for load in loads)
    first = router(next(iter(moe_layers(outcome.run))), outcome.run)
    return {
        "moe_layers": len(loads),
        "routed_tokens": routed,
        "computed_tokens": sum(load.computed for load in loads),
        "dropped_tokens": dropped,
        "dropped_fraction": dropped / routed,
        **expected_columns(expected_drop(first, outcome.run.scenario.seed)),
        "mean_rank_imbalance": sum(load.rank_imbalance for load in loads) / len(loads),
        "mean_expert_imbalance": sum(load.expert_imbalance for load in loads) / len(loads),
        **({"micro_batches": _all_micro_batches(outcome.varied)} if outcome.varied else {}),
    }


def _all_micro_batches(varied: Mapping[int, VariedLoad]) -> dict[str, Any]:
    """Return what routing did in all micro-batches of the first step, averaged over layers."""
    loads = list(varied.values())
    imbalances = np.stack([load.imbalances for load in loads]).mean(axis=0)
    return {
        "number": len(imbalances),
        "drawn": min(load.drawn for load in loads),
        "dropped_fraction": sum(load.dropped for load in loads) / sum(one.routed for one in loads),
        "mean_rank_imbalance": float(imbalances.mean()),
        "least_rank_imbalance": float(imbalances.min()),
        "most_rank_imbalance": float(imbalances.max()),
    }


def comparison(model: Outcome, dense: Outcome) -> dict[str, Any]:
    """Return the model over a baseline, as ratios."""
    ours, theirs = model.metrics, dense.metrics
    cost = None
    if ours.usd_per_million_tokens and theirs.usd_per_million_tokens:
        cost = ours.usd_per_million_tokens / theirs.usd_per_million_tokens
    return {
        "tokens_per_s_ratio": ours.tokens_per_s / theirs.tokens_per_s,
        "achieved_flop_per_s_ratio": ours.flop_per_s_per_device / theirs.flop_per_s_per_device,
        "model_flop_per_token_ratio": ours.model_flop_per_token / theirs.model_flop_per_token,
        "peak_memory_ratio": model.peak_bytes / dense.peak_bytes,
        "cost_per_token_ratio": cost,
    }
