"""The routing study: what the router does to tokens in every layer, without any timing."""

from dataclasses import dataclass

import numpy as np

from moesim import rng
from moesim.moe.assignment import Drawn, Router, draw
from moesim.moe.dispatchers import DISPATCHERS, Rows, rows_by
from moesim.moe.expected_drops import Expected
from moesim.moe.fan_out import Reach, typical_reach
from moesim.moe.kept_rows import computed_rows, is_padded
from moesim.moe.layer_consequences import Handling, LayerConsequences, compare
from moesim.moe.loads import Counts
from moesim.moe.placed_rows import expected_rank_loads, slot_rows
from moesim.moe.placement import Placement
from moesim.moe.traffic import Destinations
from moesim.spec.scenario import Scenario
from moesim.study.resolve import Training, resolve
from moesim.study.routing import MoeLayer, expected_drop, moe_layers, router
from moesim.study.routing_blocks import BlockPadding, block_padding
from moesim.study.routing_drops import TokenDrops, token_drops
from moesim.study.routing_placement import domains_of_experts, place
from moesim.study.routing_rebalancing import Rebalanced, rebalancing
from moesim.study.routing_traffic import Traffic, traffic
from moesim.study.routing_waits import Waits, waits


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedLayer:
    """One MoE layer: what was drawn, and what follows under the scenario's placement."""

    number: int
    router: Router
    drawn: Drawn
    placement: Placement
    placed: LayerConsequences
    plain: LayerConsequences
    """The same rows on contiguous experts without replicas."""
    expected: Expected | None
    """The dropped share to expect; None where too few draws are affordable."""
    block_padding: BlockPadding | None
    """What rounding up to blocks adds; None where nothing is rounded up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one dispatcher puts on the wire per token, its way there."""

    dispatcher: str
    rows: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingStudy:
    """What the router does in every MoE layer of a scenario."""

    run: Training
    layers: tuple[RoutedLayer, ...]
    where: Destinations
    """Of the last MoE layer; models have one kind of expert layer, with few exceptions."""
    reach: Reach
    sent: tuple[Sent, ...]
    traffic: Traffic
    waits: Waits
    rebalanced: Rebalanced | None
    """None where a placement stays."""
    drops: TokenDrops
    """Of one routing group of the first MoE layer."""

    @property
    def scenario(self) -> Scenario:
        """The scenario that was studied."""
        return self.run.scenario


def routing_study(scenario: Scenario) -> RoutingStudy:
    """Return the routing of one micro-batch in every MoE layer.

    Raises ScenarioError where the scenario is wrong or its model has no experts.
    """
    run = resolve(scenario)
    found = list(moe_layers(run))
    if not found:
        raise scenario.error("model", f"{run.architecture.name} has no experts to route to")
    layers = tuple(_routed(layer, run) for layer in found)
    where = _destinations(found[-1], run)
    return RoutingStudy(
        run=run,
        layers=layers,
        where=where,
        reach=typical_reach(where),
        sent=tuple(
            Sent(dispatcher=name, rows=rows_by(name, where, copies_sent(layers[-1])))
            for name in DISPATCHERS
        ),
        traffic=traffic(
            run,
            _destinations(found[0], run),
            router=layers[0].router,
            drawn=layers[0].drawn,
            placement=layers[0].placement,
        ),
        waits=waits(
            found,
            [computed_by_slot(one) for one in layers],
            [expected_rank_loads(one.drawn.shares, one.placement) for one in layers],
            run,
        ),
        rebalanced=rebalancing(found, np.stack([one.drawn.shares for one in layers]), run),
        drops=token_drops(
            layers[0].router, layers[0].drawn.shares, found[0].shape.length, scenario.seed
        ),
    )


def copies_sent(layer: RoutedLayer) -> float:
    """Return the rows that a layer sends per token, its own rank included."""
    return layer.placed.sent_rows / layer.router.tokens


def computed_by_slot(layer: RoutedLayer) -> Counts:
    """Return [ranks, slots per rank]: rows that are computed, padding included.

    Slots of a capacity are the expert's, dealt to its replicas; blocks are filled in each slot.
    """
    rule, drawn, blocks = layer.router.capacity, layer.drawn, layer.router.block_rows
    if is_padded(rule):
        full = computed_rows(rule, drawn.kept, drawn.slots, blocks)
        return slot_rows(full, layer.placement)
    return computed_rows(rule, layer.placed.slot_rows, drawn.slots, blocks)


def _routed(layer: MoeLayer, run: Training) -> RoutedLayer:
    """Return one layer; it has a stream of its own, so others do not change with it."""
    routed = router(layer, run)
    stream = rng.stream(run.scenario.seed, f"{run.title}/routing study/layer {layer.number}")
    drawn = draw(routed, stream)
    placement = place(layer, routed, drawn.shares, run)
    handling = Handling(
        kept=drawn.kept, slots=drawn.slots, rule=routed.capacity, block_rows=routed.block_rows
    )
    both = compare(drawn.routed, placement, handling)
    return RoutedLayer(
        number=layer.number,
        router=routed,
        drawn=drawn,
        placement=placement,
        placed=both.with_replicas,
        plain=both.without,
        expected=expected_drop(routed, run.scenario.seed),
        block_padding=block_padding(routed, both.with_replicas),
    )


def _destinations(layer: MoeLayer, run: Training) -> Destinations:
    return Destinations(
        experts=layer.ffn.num_experts, top_k=layer.ffn.top_k, ranks=run.layout.ep,
        domains=domains_of_experts(run), groups=layer.ffn.groups,
        groups_per_token=layer.ffn.groups_per_token, group_best=layer.ffn.group_best,
    )  # fmt: skip
