"""What the router does in every MoE layer of a run, drawn once per step."""

from collections.abc import Iterator
from dataclasses import dataclass

from moesim import rng
from moesim.cost.layout import Layout
from moesim.cost.work import Loads, mtp_number
from moesim.model.architecture import MoeFfn, layers_of
from moesim.model.shapes import Shape, sequence_shard_tokens
from moesim.moe import drops
from moesim.moe.assignment import LayerLoad, Router, assign
from moesim.moe.capacity import CapacityRule, slots
from moesim.moe.loads import LoadLaw
from moesim.spec.routing import RoutingSpec
from moesim.study.gating import PLAIN_RULE, gate_of
from moesim.study.resolve import Training


@dataclass(frozen=True, slots=True)
class MoeLayer:
    """A layer with experts: its number, its experts, and the tokens it sees."""

    number: int
    ffn: MoeFfn
    shape: Shape


def moe_layers(run: Training) -> Iterator[MoeLayer]:
    """Yield the layers of a run that have experts, MTP modules included."""
    architecture, batch = run.architecture, run.job.batch
    layers = [
        *((layer, batch.encoder or batch.decoder) for layer in layers_of(architecture.encoder)),
        *((layer, batch.decoder) for layer in layers_of(architecture.decoder)),
    ]
    for number, (layer, shape) in enumerate(layers):
        if isinstance(layer.ffn, MoeFfn):
            yield MoeLayer(number, layer.ffn, shape)
    last, shape = layers[-1]
    if isinstance(last.ffn, MoeFfn):
        for module in range(architecture.mtp_layers):
            yield MoeLayer(mtp_number(architecture, module), last.ffn, shape)


def load_law(spec: RoutingSpec) -> LoadLaw:
    """Return the load law of a scenario as a record."""
    return LoadLaw(law=spec.load.law, cv=spec.load.cv or 0.0)


def capacity_rule(spec: RoutingSpec) -> CapacityRule | None:
    """Return the capacity rule of a scenario as a record; None is dropless."""
    capacity = spec.capacity
    if capacity is None:
        return None
    return CapacityRule(
        factor=capacity.factor,
        formula=capacity.formula,
        min_slots=capacity.min_slots,
        group_tokens=capacity.group_tokens,
        pad=capacity.pad,
    )


def router(layer: MoeLayer, run: Training) -> Router:
    """Return what one MoE layer routes in one micro-batch."""
    layout = run.layout
    rule = capacity_rule(run.scenario.routing)
    local = sequence_shard_tokens(layer.shape, run.job.shard)
    tokens = local * layout.ep * layout.etp
    group = _group_tokens(rule, local, tokens, layout)
    return Router(
        tokens=tokens,
        group_tokens=group,
        experts=layer.ffn.num_experts,
        top_k=layer.ffn.top_k,
        ranks=layout.ep,
        law=load_law(run.scenario.routing),
        capacity=rule,
        rule=run.scenario.routing.gating.rule or PLAIN_RULE,
        gate=gate_of(run.scenario.routing.gating, layer.ffn),
        placement=run.scenario.routing.placement.rule,
        share_correlation=run.scenario.routing.placement.share_correlation,
    )


def _group_tokens(rule: CapacityRule | None, local: int, tokens: int, layout: Layout) -> int:
    """A group is what a rank holds, unless the rule says otherwise; MegaBlocks counts all ranks."""
    if rule is None:
        return local
    if rule.group_tokens is not None:
        return min(tokens, rule.group_tokens)
    return tokens if rule.formula == "megablocks" else local


def draw(run: Training, step: int) -> Loads:
    """Return the load of every MoE layer in `step`; layers and steps have streams of their own."""
    seed, loads = run.scenario.seed, {}
    even: dict[Router, LayerLoad] = {}
    for layer in moe_layers(run):
        routed = router(layer, run)
        if routed.law.law == "even" and routed in even:
            loads[layer.number] = even[routed]
            continue
        stream = rng.stream(seed, f"{run.title}/routing/step {step}/layer {layer.number}")
        loads[layer.number] = even[routed] = assign(routed, stream)
    return loads


def expected_drop_fraction(routed: Router) -> float | None:
    """Return the dropped share in closed form, or None where the load law has none."""
    if routed.capacity is None:
        return 0.0
    if routed.rule != PLAIN_RULE:
        return None
    limit = slots(routed.capacity, routed.group_tokens, routed.experts, routed.top_k)
    size = (routed.group_tokens, routed.experts, routed.top_k, limit)
    if routed.law.law == "even":
        return max(0.0, 1 - limit * routed.experts / (routed.group_tokens * routed.top_k))
    if routed.law.law == "uniform" or routed.law.cv < drops.SMALLEST_CV:
        return drops.uniform(*size)
    if routed.law.law == "dirichlet":
        return drops.dirichlet(*size, drops.concentration_for(routed.experts, routed.law.cv))
    return None
