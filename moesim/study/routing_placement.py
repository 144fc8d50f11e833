"""Where the experts of a scenario lie: room on the ranks, and the placement of each layer."""

from moesim import rng
from moesim.cost.layout import groups
from moesim.hardware.groups import domains
from moesim.moe.assignment import Router, known_shares
from moesim.moe.loads import Shares
from moesim.moe.placement import PLACEMENTS, Placement, Room
from moesim.study.resolve import Training
from moesim.study.routing import MoeLayer


def domains_of_experts(run: Training) -> int:
    """Return how many scale-up domains an expert-parallel group touches."""
    return domains(groups(run.layout)["ep"], run.cluster.topology)


def room_for(layer: MoeLayer, routed: Router, run: Training) -> Room:
    """Return the slots of the ranks, or say why the experts do not share them evenly."""
    spec = run.scenario.routing.placement
    slots = routed.experts + spec.redundant_experts
    if slots % routed.ranks:
        raise run.scenario.error(
            "routing.placement.redundant_experts",
            f"{routed.experts} experts and {spec.redundant_experts} redundant ones are no multiple "
            f"of ep = {routed.ranks} ranks",
        )
    nodes = domains_of_experts(run)
    if routed.ranks % nodes:
        raise run.scenario.error(
            "parallel.ep", f"{routed.ranks} ranks do not lie evenly in {nodes} scale-up domains"
        )
    room = Room(
        ranks=routed.ranks, slots_per_rank=slots // routed.ranks,
        nodes=nodes, groups=layer.ffn.groups,
    )  # fmt: skip
    if spec.rule == "replicated_by_node" and room.groups % room.nodes:
        raise run.scenario.error(
            "routing.placement.rule",
            f"keeps groups of experts inside domains, but the model's {room.groups} groups are no "
            f"multiple of the {room.nodes} domains; take replicated",
        )
    return room


def place(layer: MoeLayer, routed: Router, shares: Shares, run: Training) -> Placement:
    """Return where the experts lie, by what was known of their loads."""
    stream = rng.stream(run.scenario.seed, f"{run.title}/placement/layer {layer.number}")
    known = known_shares(shares, routed, stream)
    return PLACEMENTS[run.scenario.routing.placement.rule](known, room_for(layer, routed, run))
