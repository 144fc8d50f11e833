"""The rules of a scenario's router as records, and whether they suit the model."""

from dataclasses import replace

from moesim.model.architecture import Architecture, MoeFfn
from moesim.moe.capacity import CapacityRule
from moesim.moe.gating.gate import Gate, Level, problems
from moesim.spec.routing import GatingSpec, RoutingSpec
from moesim.spec.scenario import Scenario

PLAIN_RULE = "softmax_topk"
"""Where a scenario names no gating rule; group limits then count for the fan-out alone."""


def gate_of(spec: GatingSpec, ffn: MoeFfn) -> Gate | None:
    """Return what the gating rule of a scenario reads; None where it names none."""
    if spec.rule is None:
        return None
    gate = Gate(
        experts=ffn.num_experts, top_k=ffn.top_k, groups=ffn.groups,
        groups_per_token=ffn.groups_per_token,
        levels=tuple(Level(fanout=one.fanout, limit=one.limit) for one in spec.levels),
    )  # fmt: skip
    named = ("second_policy", "threshold", "noise", "sharpness", "shared_router")
    given = {name: value for name in named if (value := getattr(spec, name)) is not None}
    return replace(gate, **given)


def capacity_rule(spec: RoutingSpec) -> CapacityRule | None:
    """Return the capacity rule of a scenario as a record; None is dropless."""
    capacity = spec.capacity
    if capacity is None:
        return None
    same = ("formula", "mode", "counts_k", "rounding", "min_slots", "alignment", "group_tokens",
            "scope", "pad", "spared_fraction")  # fmt: skip
    rule = CapacityRule(**{name: getattr(capacity, name) for name in same})
    numbers = {name: value for name in ("factor", "absolute", "fraction")
               if (value := getattr(capacity, name)) is not None}  # fmt: skip
    return replace(rule, **numbers)


def check_gating(scenario: Scenario, architecture: Architecture) -> None:
    """Raise ScenarioError where a gating rule suits neither the model nor the load law."""
    routing = scenario.routing
    rule = routing.gating.rule
    if rule is None:
        return
    if routing.load.law == "even" and rule != "softmax_topk":
        raise scenario.error(
            "routing.gating.rule",
            f"{rule} draws its own loads, which law even forbids; take law uniform or another",
        )
    for run in (*architecture.encoder, *architecture.decoder):
        gate = gate_of(routing.gating, run.layer.ffn) if isinstance(run.layer.ffn, MoeFfn) else None
        found = problems(rule, gate) if gate is not None else ()
        if found:
            raise scenario.error("routing.gating.rule", f"{rule}: {'; '.join(found)}")


def check_placement(scenario: Scenario) -> None:
    """Raise ScenarioError where a training run is to have redundant experts."""
    if scenario.routing.placement.rule.startswith("replicated"):
        raise scenario.error(
            "routing.placement.rule",
            "training keeps one copy of an expert, whose gradients would have to be reduced over "
            "the others; `moesim routing` shows what redundant experts do",
        )
