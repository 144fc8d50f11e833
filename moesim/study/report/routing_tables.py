"""The tables of a routing study: layers, experts, ranks, dispatch, capacity."""

from dataclasses import replace
from typing import Any

from moesim import rng
from moesim.moe.assignment import draw
from moesim.moe.capacity import CapacityRule
from moesim.study.report.routing_load_tables import expected_rows, load_measures, load_tables
from moesim.study.routing import expected_drop_fraction
from moesim.study.routing_study import RoutedLayer, RoutingStudy

Rows = list[dict[str, Any]]

FACTORS = (0.75, 1.0, 1.25, 1.5, 2.0, 4.0)
"""Capacity factors that the table of drops tries."""


def tables(study: RoutingStudy) -> dict[str, Rows]:
    """Return the tables by name."""
    return {
        "layers": [_layer(layer) for layer in study.layers],
        "experts": _experts(study),
        "ranks": _ranks(study),
        "dispatch": dispatch(study),
        "capacity": capacity(study),
        **load_tables(study),
    }


def _layer(layer: RoutedLayer) -> dict[str, Any]:
    placed, plain = layer.placed, layer.plain
    return {
        "layer": layer.number,
        "routed": placed.routed,
        "computed": placed.computed,
        "dropped": placed.dropped,
        "dropped_fraction": placed.drop_fraction,
        "expected_dropped_fraction": layer.expected_drop_fraction,
        "capacity_waste_fraction": placed.capacity_waste_fraction,
        "expert_imbalance": placed.expert_imbalance,
        "slot_imbalance": placed.slot_imbalance,
        "rank_imbalance": placed.rank_imbalance,
        "rank_imbalance_contiguous": plain.rank_imbalance,
        "fullest_rank_rows": int(placed.rank_rows.max()),
        "mean_rank_rows": float(placed.rank_rows.mean()),
        "replica_memory_fraction": placed.replica_memory_fraction,
        **load_measures(layer),
    }


def _experts(study: RoutingStudy) -> Rows:
    return [
        {"layer": layer.number, "expert": expert, "routed": int(routed), "computed": int(kept),
         "expected": hoped}
        for layer in study.layers
        for expert, (routed, kept, hoped) in enumerate(
            zip(layer.drawn.routed, layer.placed.expert_rows, expected_rows(layer), strict=True)
        )
    ]  # fmt: skip


def _ranks(study: RoutingStudy) -> Rows:
    return [
        {
            "layer": layer.number,
            "rank": rank,
            "rows": int(rows),
            "rows_contiguous": int(layer.plain.rank_rows[rank]),
            "slots": " ".join(str(n) for n in layer.placed.slot_rows[rank]),
        }
        for layer in study.layers
        for rank, rows in enumerate(layer.placed.rank_rows)
    ]


def dispatch(study: RoutingStudy) -> Rows:
    """Return the rows and bytes that each dispatcher sends per token, one way."""
    row_bytes = 2.0 * study.run.architecture.hidden
    return [
        {
            "dispatcher": sent.dispatcher,
            "scale_up_rows_per_token": sent.rows.scale_up,
            "scale_out_rows_per_token": sent.rows.scale_out,
            "scale_up_bytes_per_token": sent.rows.scale_up * row_bytes,
            "scale_out_bytes_per_token": sent.rows.scale_out * row_bytes,
            "distinct_ranks": study.reach.ranks,
            "distinct_domains": study.reach.domains,
        }
        for sent in study.sent
    ]


def capacity(study: RoutingStudy) -> Rows:
    """Return what the first MoE layer drops at several capacity factors, drawn and expected."""
    layer = study.layers[0]
    rule = layer.router.capacity or CapacityRule(factor=1.0)
    factors = sorted({*FACTORS, rule.factor})
    return [_at(layer, replace(rule, factor=factor), study.scenario.seed) for factor in factors]


def _at(layer: RoutedLayer, rule: CapacityRule, seed: int) -> dict[str, Any]:
    router = replace(layer.router, capacity=rule)
    drawn = draw(router, rng.stream(seed, f"capacity table/layer {layer.number}"))
    routed, kept = int(drawn.routed.sum()), int(drawn.kept.sum())
    offered = drawn.slots * router.experts
    return {
        "factor": rule.factor,
        "dropped_fraction": 1 - kept / routed if routed else 0.0,
        "expected_dropped_fraction": expected_drop_fraction(router),
        "capacity_waste_fraction": 1 - kept / offered if offered else 0.0,
    }
