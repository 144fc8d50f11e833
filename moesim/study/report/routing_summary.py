"""summary.json of a routing study: every figure under a name that ends in its unit."""

from dataclasses import asdict
from typing import Any

from moesim.moe.assignment import Router
from moesim.moe.expected_drops import Expected
from moesim.study.report import routing_traffic_tables as traffic
from moesim.study.report.routing_drop_tables import drops
from moesim.study.report.routing_load_tables import expected_assignments, load_tables, nested
from moesim.study.report.routing_tables import (
    block_columns,
    capacity,
    dispatch,
    expected_columns,
)
from moesim.study.routing import drawing, moe_layers
from moesim.study.routing_loads import sentences
from moesim.study.routing_study import RoutedLayer, RoutingStudy
from moesim.version import __version__


def summary(study: RoutingStudy) -> dict[str, Any]:
    """Return the summary of a study: plain data, in a fixed order."""
    scenario, layers = study.scenario, study.layers
    first = layers[0].router
    return {
        "moesim_version": __version__,
        "name": scenario.name,
        "description": scenario.description,
        "seed": scenario.seed,
        "model": study.run.architecture.name,
        "moe_layers": len(layers),
        "experts": first.experts,
        "top_k": first.top_k,
        "ranks": first.ranks,
        "domains": study.where.domains,
        "load": sentences(drawing(next(moe_layers(study.run)), study.run)),
        "tokens": first.tokens,
        "group_tokens": first.group_tokens,
        "routed_tokens": sum(layer.placed.routed for layer in layers),
        "dropped_tokens": sum(layer.placed.dropped for layer in layers),
        "dropped_fraction": _share(layers),
        **_expected(layers),
        "sent_rows": sum(layer.placed.sent_rows for layer in layers),
        "padded_rows": sum(layer.placed.padded_rows for layer in layers),
        "padded_fraction": _padded(layers),
        "capacity_waste_fraction": _mean(layers, "capacity_waste_fraction"),
        "assignments_per_token": _share_of_tokens(layers),
        "expected_assignments_per_token": expected_assignments(study),
        "expert_imbalance": _mean(layers, "expert_imbalance"),
        "slot_imbalance": _mean(layers, "slot_imbalance"),
        "rank_imbalance": _mean(layers, "rank_imbalance"),
        "rank_imbalance_contiguous": _mean(layers, "rank_imbalance", plain=True),
        "replica_memory_fraction": layers[0].placed.replica_memory_fraction,
        "reach": asdict(study.reach),
        "dispatch": dispatch(study),
        "capacity": capacity(study),
        **traffic.summary(study),
        "block_padding": block_columns(layers[0].block_padding),
        "drops": drops(study.drops),
        "drops_slots": study.drops.slots,
        "drops_tokens": study.drops.tokens,
        "drops_groups": study.drops.groups,
        **load_tables(study),
        **nested(study),
        "scenario": scenario.model_dump(mode="json"),
    }


def _share(layers: tuple[RoutedLayer, ...]) -> float:
    routed = sum(layer.placed.routed for layer in layers)
    return sum(layer.placed.dropped for layer in layers) / routed if routed else 0.0


def _share_of_tokens(layers: tuple[RoutedLayer, ...]) -> float:
    tokens = sum(layer.router.tokens for layer in layers)
    return sum(layer.placed.routed for layer in layers) / tokens


def _expected(layers: tuple[RoutedLayer, ...]) -> dict[str, Any]:
    """Return the mean over layers; layers with equal routers share one Monte Carlo and its error.

    Errors of unlike routers are independent: their squares add up, each times its layers squared.
    """
    shared: dict[Router, list[Expected]] = {}
    for layer in layers:
        if layer.expected is None:
            return expected_columns(None)
        shared.setdefault(layer.router, []).append(layer.expected)
    every = [one for alike in shared.values() for one in alike]
    drawn = [one.kind for one in every if one.kind != "closed form"]
    squares = sum((len(alike) * alike[0].standard_error) ** 2 for alike in shared.values())
    return expected_columns(
        Expected(
            fraction=sum(one.fraction for one in every) / len(every),
            kind=drawn[0] if drawn else "closed form",
            standard_error=squares**0.5 / len(every),
        )
    )


def _padded(layers: tuple[RoutedLayer, ...]) -> float:
    padded = sum(layer.placed.padded_rows for layer in layers)
    rows = padded + sum(layer.placed.computed for layer in layers)
    return padded / rows if rows else 0.0


def _mean(layers: tuple[RoutedLayer, ...], name: str, *, plain: bool = False) -> float:
    """Layers take their turn, so means over layers are what a whole pass feels."""
    values = [getattr(layer.plain if plain else layer.placed, name) for layer in layers]
    return float(sum(values) / len(values))
