"""Tables of a routing study about its loads: experts touched, other granularities, the trace."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from moesim.errors import ModelError
from moesim.model.architecture import MoeFfn
from moesim.moe import touched, trace_statistics
from moesim.moe.blocks import half_block_overhead
from moesim.moe.gating import losses
from moesim.moe.gating.block import (
    Block,
    active_width,
    copies,
    fine_grained,
    isolate_shared,
    rows_per_expert,
    stored_width,
)
from moesim.moe.gating.nested import nested_size
from moesim.moe.traces import CountTable, Trace, counts_of
from moesim.study.routing import MoeLayer, moe_layers
from moesim.study.routing_expectations import (
    assignments_per_expert,
    assignments_per_token,
    chosen_by_a_token,
)
from moesim.study.routing_study import RoutedLayer, RoutingStudy
from moesim.study.traces import of_layer

Rows = list[dict[str, Any]]

BATCHES = tuple(4**power for power in range(7))
"""Tokens of the batches that the table of touched experts tries."""
PIECES = (1, 2, 4, 8)
"""Pieces into which the table of granularities splits an expert."""


def load_tables(study: RoutingStudy) -> dict[str, Rows]:
    """Return the tables by name; `trace` where the load is measured."""
    found = {"touched": touched_experts(study), "granularity": granularity(study)}
    if study.scenario.routing.load.law == "trace":
        found["trace"] = trace(study)
    return found


def expected_rows(layer: RoutedLayer) -> list[float | None]:
    """Return the rows of each expert that its popularity lets expect; None without closed form."""
    expected = assignments_per_expert(layer)
    if expected is None:
        return [None] * layer.router.experts
    return [float(value) * layer.router.tokens for value in expected]


def expected_assignments(study: RoutingStudy) -> float | None:
    """Return the expected experts per token, the mean over layers; None without closed form."""
    found = [assignments_per_token(layer) for layer in study.layers]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if len(known) == len(found) else None


def load_measures(layer: RoutedLayer) -> dict[str, float]:
    """Return what balancing losses act on: the CV of the load (Shazeer), and E sum f P (Switch).

    f are the shares of the assignments, P those of the popularity; 1 where both are equal.
    """
    routed = layer.drawn.routed
    return {
        "load_cv": losses.cv_squared(routed.astype(np.float64)) ** 0.5,
        "balance_loss": losses.balance(routed / max(1, routed.sum()), layer.drawn.shares),
    }


def nested(study: RoutingStudy) -> dict[str, Any]:
    """Return what nesting multiplies, under its name; nothing for other rules."""
    router = study.layers[0].router
    if router.rule != "nested" or router.gate is None:
        return {}
    return {"nested": asdict(nested_size(router.gate.levels))}


def touched_experts(study: RoutingStudy) -> Rows:
    """Return the distinct experts of a layer that batches of tokens choose, means over layers.

    A decode step reads the weights of these experts alone. `uniform` choices touch the most;
    `independent` tokens choose by the scenario's popularity; `bursty` ones as alike as its burst
    says; `measured` are windows of neighbours in the trace.
    """
    layers = [(chosen_by_a_token(layer), layer.router.phi) for layer in study.layers]
    traces = list(_traces(study))
    return [_touched(tokens, study, layers, traces) for tokens in BATCHES]


def _touched(
    tokens: int, study: RoutingStudy, layers: list[tuple[Any, float | None]], traces: list[Trace]
) -> dict[str, Any]:
    router = study.layers[0].router
    independent = _mean([float(touched.independent(p, tokens)) for p, _ in layers])
    expected = _mean([float(touched.expected(p, tokens, phi)) for p, phi in layers])
    long_enough = [one for one in traces if one.ids.shape[1] >= tokens]
    measured = [float(trace_statistics.touched(one, tokens).mean()) for one in long_enough]
    return {
        "tokens": tokens,
        "uniform_experts": touched.uniform(tokens, router.experts, router.top_k),
        "independent_experts": independent,
        "bursty_experts": expected if router.phi is not None else None,
        "measured_experts": _mean(measured) if measured else None,
        "expert_weights_read_fraction": expected / router.experts,
    }


def granularity(study: RoutingStudy) -> Rows:
    """Return the experts of the last MoE layer split into smaller ones, FLOP and weights equal.

    One copy per choice grows with the pieces, copies per rank until all ranks are reached, the
    share of padding (half a block of 128 rows for each expert) and the rows of an expert not at
    all; a choice made shared needs no copy.
    """
    ffn = list(moe_layers(study.run))[-1].ffn
    router = study.layers[-1].router
    return [_grain(block, pieces, router.tokens, router.ranks) for pieces, block in _variants(ffn)]


def _variants(ffn: MoeFfn) -> Iterator[tuple[int, Block]]:
    whole = Block(
        experts=ffn.num_experts, top_k=ffn.top_k, width=ffn.expert_width,
        dense_width=ffn.shared_width + ffn.parallel_dense_width,
    )  # fmt: skip
    for pieces in PIECES:
        try:
            split = fine_grained(whole, pieces)
        except ModelError:  # a width that does not divide
            continue
        yield pieces, split
        if split.top_k > 1:
            yield pieces, isolate_shared(split, 1)


def _grain(block: Block, pieces: int, tokens: int, ranks: int) -> dict[str, Any]:
    return {
        "pieces": pieces,
        "made_shared": block.shared,
        "experts": block.experts,
        "top_k": block.top_k,
        "expert_width": block.width,
        "active_width": active_width(block),
        "stored_width": stored_width(block),
        "rows_per_expert": rows_per_expert(block, tokens),
        "copies_per_choice": copies(block, ranks, deduplicated=False),
        "copies_per_rank": copies(block, ranks, deduplicated=True),
        "padding_fraction": half_block_overhead(tokens, block.experts, block.top_k),
    }


def trace(study: RoutingStudy) -> Rows:
    """Return what was measured, by MoE layer and domain, beside what was drawn from it.

    Ranks hold the experts in order here. What tokens share with their neighbours and how many
    ranks they reach is known of token traces alone, not of counts.
    """
    return [
        _measured(layer, place.place, one, study)
        for place, layer in zip(moe_layers(study.run), study.layers, strict=True)
        for one in _of_layer(study, place)
    ]


def _of_layer(study: RoutingStudy, layer: MoeLayer) -> tuple[Trace | CountTable, ...]:
    return of_layer(study.scenario, study.run.architecture, layer.ffn, layer.place)


def _traces(study: RoutingStudy) -> Iterator[Trace]:
    if study.scenario.routing.load.law == "trace":
        for layer in moe_layers(study.run):
            yield from (one for one in _of_layer(study, layer) if isinstance(one, Trace))


def _measured(
    layer: RoutedLayer, place: int, one: Trace | CountTable, study: RoutingStudy
) -> dict[str, Any]:
    counts = counts_of(one) if isinstance(one, Trace) else one.counts
    found, ranks = trace_statistics.load_statistics(counts), layer.router.ranks
    return {
        "layer": layer.number,
        "domain": one.domain,
        "cv": float(found.cv[0]),
        "gini": float(found.gini[0]),
        "entropy": float(found.entropy[0]),
        "dirichlet_concentration": float(found.concentration_ml[0]),
        "lognormal_sigma": float(found.sigma_ml[0]),
        "expert_imbalance": float(found.max_over_mean[0]),
        "expert_imbalance_drawn": layer.placed.expert_imbalance,
        "rank_imbalance": float(trace_statistics.rank_imbalance(counts, ranks)[0]),
        "rank_imbalance_drawn": layer.plain.rank_imbalance,
        "distinct_ranks_assumed": study.reach.ranks,
        **_of_tokens(one, ranks),
    }


def _of_tokens(one: Trace | CountTable, ranks: int) -> dict[str, float | None]:
    if isinstance(one, CountTable):
        return dict.fromkeys(("distinct_ranks", "shared_with_neighbour", "burst"))
    shared = float(trace_statistics.locality(one)[0])
    return {
        "distinct_ranks": float(trace_statistics.fan_out(one, ranks)[0]),
        "shared_with_neighbour": shared if np.isfinite(shared) else None,
        "burst": float(trace_statistics.phi(one)[0]),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
