"""The routing study: what the router does to tokens in every layer, without any timing."""

from dataclasses import dataclass

from moesim import rng
from moesim.cost.layout import groups
from moesim.hardware.groups import domains
from moesim.moe.assignment import Drawn, Router, draw, known_shares
from moesim.moe.dispatchers import DISPATCHERS, Rows
from moesim.moe.fan_out import Reach, typical_reach
from moesim.moe.layer_consequences import LayerConsequences, compare
from moesim.moe.loads import Shares
from moesim.moe.placement import PLACEMENTS, Placement, Room
from moesim.moe.traffic import Destinations
from moesim.spec.scenario import Scenario
from moesim.study.resolve import Training, resolve
from moesim.study.routing import MoeLayer, expected_drop_fraction, moe_layers, router


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
    expected_drop_fraction: float | None
    """In closed form; None where the law or the gating rule has none."""


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
        sent=tuple(Sent(dispatcher=name, rows=rule(where)) for name, rule in DISPATCHERS.items()),
    )


def _routed(layer: MoeLayer, run: Training) -> RoutedLayer:
    """Return one layer; it has a stream of its own, so others do not change with it."""
    routed = router(layer, run)
    stream = rng.stream(run.scenario.seed, f"{run.title}/routing study/layer {layer.number}")
    drawn = draw(routed, stream)
    placement = _placement(layer, routed, drawn.shares, run)
    slots = drawn.slots * routed.experts if routed.capacity else None
    both = compare(drawn.routed, placement, kept=drawn.kept, slots_offered=slots)
    return RoutedLayer(
        number=layer.number,
        router=routed,
        drawn=drawn,
        placement=placement,
        placed=both.with_replicas,
        plain=both.without,
        expected_drop_fraction=expected_drop_fraction(routed),
    )


def _placement(layer: MoeLayer, routed: Router, shares: Shares, run: Training) -> Placement:
    """Return where the experts lie, by what was known of their loads."""
    spec = run.scenario.routing.placement
    slots = routed.experts + spec.redundant_experts
    if slots % routed.ranks:
        raise run.scenario.error(
            "routing.placement.redundant_experts",
            f"{routed.experts} experts and {spec.redundant_experts} redundant ones are no multiple "
            f"of ep = {routed.ranks} ranks",
        )
    room = Room(
        ranks=routed.ranks, slots_per_rank=slots // routed.ranks,
        nodes=domains_of_experts(run), groups=layer.ffn.groups,
    )  # fmt: skip
    if spec.rule == "replicated_by_node" and room.groups % room.nodes:
        raise run.scenario.error(
            "routing.placement.rule",
            f"keeps groups of experts inside domains, but the model's {room.groups} groups are no "
            f"multiple of the {room.nodes} domains; take replicated",
        )
    stream = rng.stream(run.scenario.seed, f"{run.title}/placement/layer {layer.number}")
    return PLACEMENTS[spec.rule](known_shares(shares, routed, stream), room)


def domains_of_experts(run: Training) -> int:
    """Return how many scale-up domains an expert-parallel group touches."""
    return domains(groups(run.layout)["ep"], run.cluster.topology)


def _destinations(layer: MoeLayer, run: Training) -> Destinations:
    return Destinations(
        experts=layer.ffn.num_experts, top_k=layer.ffn.top_k, ranks=run.layout.ep,
        domains=domains_of_experts(run), groups=layer.ffn.groups,
        groups_per_token=layer.ffn.groups_per_token, group_best=layer.ffn.group_best,
    )  # fmt: skip
