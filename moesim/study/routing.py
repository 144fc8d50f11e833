"""What the router does in every MoE layer of a run, drawn once per step."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moesim import rng
from moesim.cost.layout import Layout
from moesim.cost.work import Loads, mtp_number
from moesim.model.architecture import MoeFfn, layers_of
from moesim.model.shapes import Shape, sequence_shard_tokens
from moesim.moe.assignment import LayerLoad, Router, assign, wanting_tokens
from moesim.moe.capacity import CapacityRule
from moesim.moe.expected_drops import (
    Drawn,
    Expected,
    affordable_draws,
    draw_groups,
    expected_drops,
)
from moesim.moe.groups import Tokens, group_tokens
from moesim.study.resolve import Training
from moesim.study.router_rules import PLAIN_RULE, capacity_rule, drawing_gate
from moesim.study.routing_loads import Drawing, layer_law, mixed_load, own_shares


@dataclass(frozen=True, slots=True)
class MoeLayer:
    """A layer with experts: its number, its experts, and the tokens it sees."""

    number: int
    ffn: MoeFfn
    shape: Shape
    place: int
    """How many layers with experts come before it."""


def moe_layers(run: Training) -> Iterator[MoeLayer]:
    """Yield the layers of a run that have experts, MTP modules included."""
    architecture, batch = run.architecture, run.job.batch
    layers = [
        *((layer, batch.encoder or batch.decoder) for layer in layers_of(architecture.encoder)),
        *((layer, batch.decoder) for layer in layers_of(architecture.decoder)),
    ]
    place = 0
    for number, (layer, shape) in enumerate(layers):
        if isinstance(layer.ffn, MoeFfn):
            yield MoeLayer(number, layer.ffn, shape, place)
            place += 1
    last, shape = layers[-1]
    if isinstance(last.ffn, MoeFfn):
        for module in range(architecture.mtp_layers):
            yield MoeLayer(mtp_number(architecture, module), last.ffn, shape, place + module)


def drawing(layer: MoeLayer, run: Training, step: int = 0) -> Drawing:
    """Return what the load of one MoE layer in one micro-batch of a step depends on."""
    local = sequence_shard_tokens(layer.shape, run.job.shard)
    rule = capacity_rule(run.scenario.routing)
    return Drawing(
        scenario=run.scenario, architecture=run.architecture, ffn=layer.ffn, place=layer.place,
        step=step, tokens=local * run.layout.ep * run.layout.etp,
        group_tokens=_group_tokens(rule, layer, local, run.layout),
        sequence_tokens=layer.shape.length,
    )  # fmt: skip


def router(layer: MoeLayer, run: Training, step: int = 0) -> Router:
    """Return what one MoE layer routes in one micro-batch of a step."""
    load = drawing(layer, run, step)
    return Router(
        tokens=load.tokens,
        group_tokens=load.group_tokens,
        experts=layer.ffn.num_experts,
        top_k=layer.ffn.top_k,
        ranks=run.layout.ep,
        law=layer_law(load),
        capacity=capacity_rule(run.scenario.routing),
        rule=run.scenario.routing.gating.rule or PLAIN_RULE,
        gate=drawing_gate(run.scenario.routing.gating, layer.ffn),
        shares=own_shares(load),
        phi=run.scenario.routing.load.burst,
        placement=run.scenario.routing.placement.rule,
        mixed=mixed_load(load),
        share_correlation=run.scenario.routing.placement.share_correlation,
        block_rows=run.scenario.routing.block_rows or 1,
    )


def _group_tokens(rule: CapacityRule | None, layer: MoeLayer, local: int, layout: Layout) -> int:
    """Return the tokens of a routing group; without a capacity those of a rank."""
    if rule is None:
        return local
    sizes = Tokens(sequence=layer.shape.length, rank=local, ep_ranks=layout.ep * layout.etp)
    return group_tokens(rule, sizes)


def draw(run: Training, step: int) -> Loads:
    """Return the load of every MoE layer in `step`; layers and steps have streams of their own."""
    seed, loads = run.scenario.seed, {}
    even: dict[Router, LayerLoad] = {}
    for layer in moe_layers(run):
        routed = router(layer, run, step)
        if routed.law.law == "even" and routed in even:
            loads[layer.number] = even[routed]
            continue
        stream = rng.stream(seed, f"{run.title}/routing/step {step}/layer {layer.number}")
        loads[layer.number] = even[routed] = assign(routed, stream)
    return loads


@lru_cache(maxsize=512)
def expected_drop(routed: Router, seed: int) -> Expected | None:
    """Return the dropped share to expect; equal routers, whatever their layer, are asked once."""
    tokens = wanting_tokens(routed, routed.group_tokens)
    free = replace(routed, capacity=None)
    return expected_drops(routed, lambda: _groups(free, tokens, seed))


@lru_cache(maxsize=2)
def _counts(routed: Router, tokens: int, seed: int) -> NDArray[np.int64]:
    """Return the groups of a Monte Carlo: the same whatever the capacity."""
    stream = rng.stream(seed, "expected drops")
    return draw_groups(routed, tokens, affordable_draws(routed), stream)


def _groups(routed: Router, tokens: int, seed: int) -> Drawn:
    return _counts(routed, tokens, seed), rng.stream(seed, "expected drops/kept")
