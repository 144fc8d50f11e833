"""The tables of a routing study: layers, experts, ranks, dispatch, capacity, drops, traffic."""

from dataclasses import replace
from typing import Any

from moesim import rng
from moesim.moe.assignment import draw, sharers, slots_of
from moesim.moe.capacity import CapacityRule
from moesim.moe.dispatchers import Rows as SentRows
from moesim.moe.expected_drops import Expected
from moesim.study.report import routing_traffic_tables as traffic
from moesim.study.report.routing_drop_tables import drops
from moesim.study.report.routing_load_tables import expected_rows, load_measures, load_tables
from moesim.study.routing import expected_drop
from moesim.study.routing_blocks import BlockPadding
from moesim.study.routing_study import RoutedLayer, RoutingStudy
from moesim.study.routing_traffic import row_bytes as row_bytes_of

Rows = list[dict[str, Any]]

FACTORS = (0.75, 1.0, 1.25, 1.5, 2.0, 4.0)
"""Capacity factors that the table of drops tries."""


def tables(study: RoutingStudy) -> dict[str, Rows]:
    """Return the tables by name."""
    found = {
        "layers": [_layer(layer) for layer in study.layers],
        "experts": _experts(study),
        "ranks": _ranks(study),
        "dispatch": dispatch(study),
        "capacity": capacity(study),
        **traffic.tables(study),
        **load_tables(study),
    }
    return {**found, "drops": drops(study.drops)} if study.drops.parts else found


def _layer(layer: RoutedLayer) -> dict[str, Any]:
    placed, plain = layer.placed, layer.plain
    return {
        "layer": layer.number,
        "routed": placed.routed,
        "computed": placed.computed,
        "dropped": placed.dropped,
        "dropped_fraction": placed.drop_fraction,
        **expected_columns(layer.expected),
        "sent_rows": placed.sent_rows,
        "padded_rows": placed.padded_rows,
        "padded_fraction": placed.padded_fraction,
        **block_columns(layer.block_padding),
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


def expected_columns(expected: Expected | None) -> dict[str, Any]:
    """Return the dropped share to expect, how it was found, and how far it may be off."""
    return {
        "expected_dropped_fraction": expected and expected.fraction,
        "expected_drop_kind": expected and expected.kind,
        "expected_drop_standard_error": expected and expected.standard_error,
    }


def block_columns(padding: BlockPadding | None) -> dict[str, Any]:
    """Return what whole blocks add to the rows of the experts; nothing without blocks."""
    if padding is None:
        return {}
    return {
        "block_rows": padding.block_rows,
        "block_overhead_fraction": padding.drawn_fraction,
        "expected_block_overhead_fraction": padding.expected_fraction,
        "half_block_overhead_fraction": padding.half_block_fraction,
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
    row_bytes, _ = row_bytes_of(study.run)
    sent: list[tuple[str, int | None, SentRows]] = [
        *((one.dispatcher, None, one.rows) for one in study.sent),
        *(("hierarchical", level, rows) for level, rows in enumerate(study.traffic.levels, 1)),
    ]
    return [
        {
            "dispatcher": dispatcher,
            "level": level,
            "scale_up_rows_per_token": rows.scale_up,
            "scale_out_rows_per_token": rows.scale_out,
            "scale_up_bytes_per_token": rows.scale_up * row_bytes,
            "scale_out_bytes_per_token": rows.scale_out * row_bytes,
        }
        for dispatcher, level, rows in sent
    ]


def capacity(study: RoutingStudy) -> Rows:
    """Return what the first MoE layer drops at several capacity factors, drawn and expected.

    The factors are the formula's own, or, where slots are given as such or as a fraction of the
    tokens, slots over the mean load.
    """
    layer = study.layers[0]
    rule = layer.router.capacity or CapacityRule(factor=1.0)
    mean = layer.router.group_tokens * layer.router.top_k / sharers(layer.router)
    own = {
        "absolute": rule.absolute / mean,
        "fraction": rule.fraction * layer.router.group_tokens / mean,
    }.get(rule.mode, rule.factor)
    seed = study.scenario.seed
    return [
        _at(layer, rule if factor == own else _with(rule, factor, mean, layer), (factor, seed))
        for factor in sorted({*FACTORS, own})
    ]


def _with(rule: CapacityRule, factor: float, mean: float, layer: RoutedLayer) -> CapacityRule:
    """Return the rule with slots of `factor` times the mean load."""
    if rule.mode == "absolute":
        return replace(rule, absolute=round(factor * mean))
    if rule.mode == "fraction":
        return replace(rule, fraction=min(1.0, factor * mean / layer.router.group_tokens))
    return replace(rule, factor=factor)


def _at(layer: RoutedLayer, rule: CapacityRule, at: tuple[float, int]) -> dict[str, Any]:
    factor, seed = at
    router = replace(layer.router, capacity=rule)
    drawn = draw(router, rng.stream(seed, f"capacity table/layer {layer.number}"))
    routed, kept = int(drawn.routed.sum()), int(drawn.kept.sum())
    offered = drawn.slots * sharers(router)
    return {
        "factor": factor,
        "slots": slots_of(router, router.group_tokens, drawn.fullest),
        "dropped_fraction": 1 - kept / routed if routed else 0.0,
        **expected_columns(expected_drop(router, seed)),
        "capacity_waste_fraction": 1 - kept / offered if offered else 0.0,
    }
