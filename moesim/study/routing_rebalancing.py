"""Experts placed anew while loads drift: imbalance step by step, and the weights that move."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from moesim import rng
from moesim.cost.collectives import exchange_s
from moesim.cost.layout import networks
from moesim.model.parameters import expert_params
from moesim.moe.assignment import Router
from moesim.moe.counts import draw_counts
from moesim.moe.gating.sampling import FAST, gate_counts
from moesim.moe.loads import Counts, Shares, draw_shares
from moesim.moe.placed_rows import rank_loads
from moesim.moe.placement import PLACEMENTS
from moesim.moe.rebalancing import (
    Moves,
    Rebalancing,
    bytes_between_nodes,
    drifted,
    log_correlation_of,
    moves,
    rebalanced,
    received_bytes,
)
from moesim.moe.straggler import excess
from moesim.study.resolve import Training
from moesim.study.routing import MoeLayer, router
from moesim.study.routing_placement import room_for

INTERVALS = 4
"""Stretches between rebalancings that are looked at; the first has the placement for even loads."""
LOOKED_AT = 6
"""Steps of a stretch that are drawn, its first and its last among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What one rebalancing sends, all MoE layers together."""

    step: int
    experts: int
    """Experts that some rank fetches from another."""
    fullest_received_bytes: float
    """What the rank receives that receives most."""
    between_domains_bytes: float
    """What all ranks together receive from other scale-up domains."""
    transfer_s: float
    """At the links of the cluster, nothing hidden."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalanced:
    """Steps that were looked at, and what was moved before some of them."""

    steps: tuple[int, ...]
    imbalances: tuple[float, ...]
    """Fullest rank over mean in each step, averaged over the MoE layers."""
    kept_imbalances: tuple[float, ...]
    """The same where the placement made first from loads seen would have stayed."""
    moves: tuple[Move, ...]


def rebalancing(found: list[MoeLayer], shares: Shares, run: Training) -> Rebalanced | None:
    """Return what rebalancing does from `shares` [layers, E] on; None where there is none.

    Rows are as routed, before any drop.
    """
    spec = run.scenario.routing.placement
    if spec.rebalance_every is None:
        return None
    steps = looked_at(spec.rebalance_every)
    counts = np.stack(
        [_counts(one, shares[row], steps, run) for row, one in enumerate(found)], axis=1
    )
    first = router(found[0], run)
    room = room_for(found[0], first, run)
    plan = Rebalancing(interval=len(steps) // INTERVALS, window=1)
    history = rebalanced(counts, plan, PLACEMENTS[spec.rule], room)
    kept = rank_loads(counts, history.placements[1])
    kept[: plan.interval] = history.rank_rows[: plan.interval]
    changes = [moves(old, new, room.nodes) for old, new in pairwise(history.placements)]
    return Rebalanced(
        steps=steps,
        imbalances=_imbalances(history.rank_rows),
        kept_imbalances=_imbalances(kept),
        moves=tuple(
            _move(steps[start], change, moved_bytes(found[0], run), run)
            for start, change in zip(history.starts[1:], changes, strict=True)
        ),
    )


def looked_at(interval: int) -> tuple[int, ...]:
    """Return the steps that are drawn: some of each stretch, its last before each rebalancing."""
    inside = np.unique(np.linspace(0, interval - 1, min(interval, LOOKED_AT)).round().astype(int))
    return tuple(int(stretch * interval + n) for stretch in range(INTERVALS) for n in inside)


def _imbalances(rank_rows: Counts) -> tuple[float, ...]:
    return tuple(float(one) for one in 1 + excess(rank_rows).mean(axis=1))


def _counts(layer: MoeLayer, shares: Shares, steps: tuple[int, ...], run: Training) -> Counts:
    """Return counts [steps, E] of one layer, whose shares drift from step to step."""
    routed = router(layer, run)
    stream = rng.stream(run.scenario.seed, f"{run.title}/rebalancing/layer {layer.number}")
    per_step = float(log_correlation_of(routed.share_correlation, routed.law.cv))
    found = [_drawn(routed, shares, stream)]
    for before, now in pairwise(steps):
        fresh = draw_shares(routed.law, routed.experts, stream)
        shares = drifted(shares, fresh, per_step ** (now - before))
        found.append(_drawn(routed, shares, stream))
    return np.stack(found)


def _drawn(routed: Router, shares: Shares, stream: np.random.Generator) -> Counts:
    """Return the counts of one step; rules that need single tokens count by the shares alone."""
    if routed.gate is None or routed.rule not in FAST:
        return draw_counts(shares, routed.tokens, routed.top_k, stream)
    found = gate_counts(
        routed.rule, routed.gate, shares, routed.tokens, ranks=1, generator=stream
    )  # fmt: skip
    return np.asarray(found.sum(axis=0), dtype=np.int64)


def moved_bytes(layer: MoeLayer, run: Training) -> float:
    """Return the bytes of one expert that one rank fetches: its slice of it.

    Weights alone with redundant experts, which only serving has; else master weights and moments
    come along, of which each of edp replicas may hold a part.
    """
    rule, layout = run.job.optimizer, run.layout
    states = 0.0
    if not run.scenario.routing.placement.rule.startswith("replicated"):
        states = rule.state_bytes / (layout.edp if rule.distributed else 1)
    params = expert_params(layer.ffn, run.architecture.hidden) / layout.etp
    return params * (rule.gathered_bytes + states)


def _move(step: int, change: Moves, expert_bytes: float, run: Training) -> Move:
    net = networks(run.layout, run.cluster.topology, run.software)["ep"]
    near, away = _fullest(change)
    return Move(
        step=step,
        experts=int(change.experts.sum()),
        fullest_received_bytes=float(received_bytes(change, expert_bytes).max()),
        between_domains_bytes=float(bytes_between_nodes(change, expert_bytes).sum()),
        transfer_s=exchange_s(near * expert_bytes, away * expert_bytes, net),
    )


def _fullest(change: Moves) -> tuple[int, int]:
    """Return the most experts that any rank sends or receives inside its node, and beyond."""
    node = np.arange(len(change.experts)) * change.nodes // len(change.experts)
    same = node[:, None] == node
    return _most(np.where(same, change.experts, 0)), _most(np.where(same, 0, change.experts))


def _most(experts: NDArray[np.int64]) -> int:
    return int(max(experts.sum(axis=0).max(), experts.sum(axis=1).max()))
