"""The rules of a scenario's router as records, and whether they suit the model."""

from dataclasses import replace

from moesim.model.architecture import Architecture, Layer, MoeFfn
from moesim.moe.capacity import CapacityRule, pads
from moesim.moe.gating.gate import Gate, Level, problems
from moesim.moe.kept_rows import is_padded
from moesim.spec.gating import GatingSpec, LevelSpec
from moesim.spec.routing import RoutingSpec
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
        levels=tuple(_level(one) for one in spec.levels),
    )  # fmt: skip
    named = ("second_policy", "threshold", "noise", "sharpness", "shared_router", "hash_map")
    given = {name: value for name in named if (value := getattr(spec, name)) is not None}
    return replace(gate, **given)


_GROUP_BEST = {"deepseek_v2": 1, "deepseek_v3": 2}
"""Best scores that count for a group, by the rules that limit groups."""


def under_rule(architecture: Architecture, spec: GatingSpec) -> Architecture:
    """Return the architecture whose groups are picked as the gating rule of a scenario says."""
    best = _GROUP_BEST.get(spec.rule or "")
    if best is None:
        return architecture
    encoder, decoder = (
        tuple(replace(run, layer=_with_best(run.layer, best)) for run in runs)
        for runs in (architecture.encoder, architecture.decoder)
    )
    return replace(architecture, encoder=encoder, decoder=decoder)


def _with_best(layer: Layer, best: int) -> Layer:
    if not isinstance(layer.ffn, MoeFfn):
        return layer
    return replace(layer, ffn=replace(layer.ffn, group_best=best))


def drawing_gate(spec: GatingSpec, ffn: MoeFfn) -> Gate | None:
    """Return the gate by which counts are drawn; None where shares say all, as under hash."""
    return None if spec.rule == "hash" else gate_of(spec, ffn)


def _level(spec: LevelSpec) -> Level:
    return Level(
        fanout=spec.fanout, limit=spec.limit, link=spec.link, rule=spec.rule or "softmax_topk"
    )


def capacity_rule(spec: RoutingSpec) -> CapacityRule | None:
    """Return the capacity rule of a scenario as a record; None is dropless."""
    capacity = spec.capacity
    if capacity is None:
        return None
    same = ("formula", "mode", "counts_k", "rounding", "min_slots", "alignment", "group_tokens",
            "scope", "pad", "spared_fraction", "policy", "padding_fraction",
            "padding_tokens_occupy_capacity")  # fmt: skip
    rule = CapacityRule(**{name: getattr(capacity, name) for name in same})
    numbers = {name: value for name in ("factor", "absolute", "fraction")
               if (value := getattr(capacity, name)) is not None}  # fmt: skip
    return replace(rule, **numbers)


_OWN_LOAD = {
    "base": "balances experts",
    "expert_choice": "balances experts",
    "hash": "loads experts by the frequency of token ids",
}
"""Rules for which it does not matter how popular an expert is, and what they do instead."""


def check_routing(scenario: Scenario, architecture: Architecture) -> None:
    """Raise ScenarioError where rules of the router suit neither each other nor the model."""
    routing = scenario.routing
    drawn = routing.load.law in ("dirichlet", "lognormal") and not routing.load.mixture
    if routing.placement.share_correlation < 1 and not drawn:
        raise scenario.error(
            "routing.placement.share_correlation",
            "loads that were others before need a law with cv: dirichlet or lognormal",
        )
    rule = capacity_rule(routing)
    if routing.block_rows is not None and rule is not None and pads(rule):
        raise scenario.error(
            "routing.block_rows",
            f"{rule.formula} pads buffers to the capacity, which leaves no rows to round up; say "
            "capacity.pad: false or leave block_rows out",
        )
    if scenario.training.permutation == "one_hot" and architecture.is_moe and not is_padded(rule):
        raise scenario.error(
            "training.permutation",
            "one_hot needs slots to sort tokens into: give routing.capacity with pad: true, or "
            "take index",
        )
    if routing.gating.rule is not None:
        _check_gating(scenario, routing.gating.rule)
        _check_gate(scenario, architecture, routing.gating.rule)


def _check_gating(scenario: Scenario, rule: str) -> None:
    """Raise ScenarioError where the load is of a kind that the rule does not know."""
    load = scenario.routing.load
    if load.law == "even" and rule != PLAIN_RULE:
        raise scenario.error(
            "routing.gating.rule",
            f"{rule} draws its own loads, which law even forbids; take law uniform or another",
        )
    if rule in _OWN_LOAD and load.law != "uniform":
        raise scenario.error(
            "routing.gating.rule", f"{rule} {_OWN_LOAD[rule]} whatever the law; take law uniform"
        )
    if load.mixture or load.detail == "replay":
        raise scenario.error(
            "routing.gating.rule",
            "domains and replayed tokens bring their choices with them; leave the rule out",
        )
    if load.burst is not None and rule != PLAIN_RULE:
        raise scenario.error(
            "routing.load.burst", f"bursts under the rule {rule} are not modelled; leave it out"
        )


def _check_gate(scenario: Scenario, architecture: Architecture, rule: str) -> None:
    """Raise ScenarioError where the rule does not suit the experts of the model."""
    for run in (*architecture.encoder, *architecture.decoder):
        ffn = run.layer.ffn
        gate = gate_of(scenario.routing.gating, ffn) if isinstance(ffn, MoeFfn) else None
        found = problems(rule, gate) if gate is not None else ()
        if found:
            raise scenario.error("routing.gating.rule", f"{rule}: {'; '.join(found)}")


def check_placement(scenario: Scenario) -> None:
    """Raise ScenarioError where a training run is to have redundant or moving experts."""
    if scenario.routing.placement.rebalance_every is not None:
        raise scenario.error(
            "routing.placement.rebalance_every",
            "a run does not time the weights that move; `moesim routing` shows what rebalancing "
            "does",
        )
    if scenario.routing.placement.rule.startswith("replicated"):
        raise scenario.error(
            "routing.placement.rule",
            "training keeps one copy of an expert, whose gradients would have to be reduced over "
            "the others; `moesim routing` shows what redundant experts do",
        )
