"""Tables and figures of what placement and routing cost: bytes, waiting, memory, moved weights."""

from dataclasses import asdict
from typing import Any

from moesim.study.routing_rebalancing import Rebalanced
from moesim.study.routing_study import RoutingStudy
from moesim.study.routing_traffic import Traffic
from moesim.study.routing_waits import Waits

Rows = list[dict[str, Any]]


def tables(study: RoutingStudy) -> dict[str, Rows]:
    """Return the tables by name; that of rebalancing where there is any."""
    found = {"byte_matrix": byte_matrix(study.traffic), "traffic": sent(study.traffic)}
    found["stragglers"] = stragglers(study)
    if study.rebalanced is not None:
        found["rebalancing"] = _rebalancing(study.rebalanced)
    return found


def summary(study: RoutingStudy) -> dict[str, Any]:
    """Return the figures for summary.json."""
    every = study.scenario.routing.placement.rebalance_every
    return {
        "reach_as_placed": asdict(study.traffic.reach),
        "traffic": sent(study.traffic),
        "stragglers": straggler_summary(study.waits),
        "rebalancing": rebalancing_summary(study.rebalanced, every)
        if study.rebalanced is not None and every is not None
        else None,
    }


def byte_matrix(found: Traffic) -> Rows:
    """Return bytes from rank to rank, or from part to part where there are many ranks."""
    return [
        {
            "dispatcher": one.dispatcher,
            "sender": sender,
            "receiver": receiver,
            "dispatch_bytes": float(one.dispatch_bytes[sender, receiver]),
            "combine_bytes": float(one.combine_bytes[sender, receiver]),
            "expected_dispatch_bytes": None
            if one.expected_bytes is None
            else float(one.expected_bytes[sender, receiver]),
        }
        for one in found.sendings
        for sender in range(len(one.dispatch_bytes))
        for receiver in range(len(one.dispatch_bytes))
    ]


def sent(found: Traffic) -> Rows:
    """Return the bytes of the first MoE layer by dispatcher, of one micro-batch on all ranks."""
    return [
        {
            "dispatcher": one.dispatcher,
            "ranks": found.ranks,
            "ranks_per_part": found.ranks_per_part,
            "scale_up_bytes": one.scale_up_bytes,
            "scale_out_bytes": one.scale_out_bytes,
            "dispatch_bytes": float(one.dispatch_bytes.sum()),
            "expected_dispatch_bytes": None
            if one.expected_bytes is None
            else float(one.expected_bytes.sum()),
            "combine_bytes": float(one.combine_bytes.sum()),
            "fullest_received_bytes": float(one.dispatch_bytes.sum(axis=0).max()),
        }
        for one in found.sendings
    ]


def stragglers(study: RoutingStudy) -> Rows:
    """Return what the fullest rank of each layer costs, of one micro-batch, forward."""
    found = study.waits
    seconds, kept = found.seconds, found.kept_bytes
    return [
        {
            "layer": layer.number,
            "fullest_rank": int(found.rows.slowest[row]),
            "rows_excess": float(found.excesses[row]),
            "lasting_excess": float(found.lasting[row]),
            "fullest_experts_s": None if seconds is None else float(seconds.maxima[row]),
            "mean_experts_s": None if seconds is None else float(seconds.means[row]),
            "lost_s": None if seconds is None else float((seconds.maxima - seconds.means)[row]),
            "fullest_activation_bytes": float(kept.maxima[row]),
            "mean_activation_bytes": float(kept.means[row]),
        }
        for row, layer in enumerate(study.layers)
    ]


def straggler_summary(found: Waits) -> dict[str, Any]:
    """Return sums over the MoE layers: ranks meet after each, which costs more than once at last.

    Activations are those of the rank that keeps most in all layers together.
    """
    rows, seconds, kept = found.rows, found.seconds, found.kept_bytes
    mean_rows = float(rows.means.sum())
    mean_s = None if seconds is None else float(seconds.means.sum())
    return {
        "rows_excess": rows.sum_of_maxima / mean_rows - 1 if mean_rows else 0.0,
        "rows_excess_met_once": rows.maximum_of_sums / mean_rows - 1 if mean_rows else 0.0,
        "fullest_experts_s": None if seconds is None else seconds.sum_of_maxima,
        "mean_experts_s": mean_s,
        "lost_s": None if seconds is None or mean_s is None else seconds.sum_of_maxima - mean_s,
        "lost_met_once_s": None
        if seconds is None or mean_s is None
        else seconds.maximum_of_sums - mean_s,
        "fullest_activation_bytes": kept.maximum_of_sums,
        "mean_activation_bytes": float(kept.means.sum()),
        "activation_bytes_of_maxima": kept.sum_of_maxima,
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
