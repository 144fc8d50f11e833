"""Tables and figures of what placement and routing cost: bytes, waiting, memory, moved weights."""

from typing import Any

from moesim.study.routing_rebalancing import Rebalanced
from moesim.study.routing_study import RoutingStudy

Rows = list[dict[str, Any]]


def tables(study: RoutingStudy) -> dict[str, Rows]:
    """Return the tables by name; that of rebalancing where there is any."""
    found: dict[str, Rows] = {}
    if study.rebalanced is not None:
        found["rebalancing"] = _rebalancing(study.rebalanced)
    return found


def summary(study: RoutingStudy) -> dict[str, Any]:
    """Return the figures for summary.json."""
    every = study.scenario.routing.placement.rebalance_every
    return {
        "rebalancing": rebalancing_summary(study.rebalanced, every)
        if study.rebalanced is not None and every is not None
        else None,
    }


def _rebalancing(found: Rebalanced) -> Rows:
    """Return a row per step looked at; what moves, moves before the step."""
    moved = {move.step: move for move in found.moves}
    rows = []
    for step, now, kept in zip(found.steps, found.imbalances, found.kept_imbalances, strict=True):
        move = moved.get(step)
        rows.append(
            {
                "step": step,
                "rank_imbalance": now,
                "rank_imbalance_kept": kept,
                "moved_experts": move.experts if move else 0,
                "fullest_received_bytes": move.fullest_received_bytes if move else 0.0,
                "between_domains_bytes": move.between_domains_bytes if move else 0.0,
                "transfer_s": move.transfer_s if move else 0.0,
            }
        )
    return rows


def rebalancing_summary(found: Rebalanced, every: int) -> dict[str, Any]:
    """Return means from the first placement on that was made from loads seen.

    Moves are means over the rebalancings after that one, which replaces a placement for even loads.
    """
    start = found.steps.index(found.moves[0].step)
    now, kept = found.imbalances[start:], found.kept_imbalances[start:]
    later = found.moves[1:]
    means = {
        name: sum(getattr(move, name) for move in later) / len(later)
        for name in ("experts", "fullest_received_bytes", "between_domains_bytes", "transfer_s")
    }
    return {
        "rebalance_every": every,
        "rank_imbalance": sum(now) / len(now),
        "rank_imbalance_kept": sum(kept) / len(kept),
        "moved_experts": means.pop("experts"),
        **means,
        "transfer_s_per_step": means["transfer_s"] / every,
    }
