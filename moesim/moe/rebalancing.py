"""Rebalancing: which weights move between two placements, and how stale a placement becomes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.moe.loads import Counts
from moesim.moe.placed_rows import rank_loads
from moesim.moe.placement import Placement, Room

Rule = Callable[[ArrayLike, Room], Placement]
Floats = NDArray[np.float64]

SMALLEST_SHARE = 1e-12
"""Shares below this count as this where logarithms are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What a change of placement does in one layer, or summed over the layers of both."""

    changed_slots: int
    """Slots that hold another expert than before, on whichever rank it was."""
    experts: NDArray[np.int64]
    """[sender rank, receiver rank] experts whose weights cross; the diagonal is 0."""
    nodes: int = 1


def moves(old: Placement, new: Placement, nodes: int = 1) -> Moves:
    """Return who sends which weights to whom when `new` replaces `old`.

    A rank fetches each expert that it holds now and did not hold before, once. It fetches from a
    rank of its own node if one has it; the holders take turns.
    """
    ranks, slots_per_rank = new.expert_of_slot.shape[-2:]
    before = old.expert_of_slot.reshape(-1, *old.expert_of_slot.shape[-2:])
    after = new.expert_of_slot.reshape(-1, ranks, slots_per_rank)
    had, has = _holds(before, old.experts), _holds(after, new.experts)
    sent = np.zeros((ranks, ranks), dtype=np.int64)
    node = np.arange(ranks) * nodes // ranks
    for layer, receiver, expert in zip(*np.nonzero(has & ~had), strict=True):
        holders = np.flatnonzero(had[layer, :, expert])
        near = holders[node[holders] == node[receiver]]
        senders = near if len(near) else holders
        # the sender that has sent least so far
        sent[senders[sent[senders].sum(axis=1).argmin()], receiver] += 1
    return Moves(changed_slots=_changed(before, after), experts=sent, nodes=nodes)


def received_bytes(change: Moves, expert_bytes: float) -> Floats:
    """Return [ranks]: bytes of weights that each rank receives."""
    return np.asarray(change.experts.sum(axis=0) * expert_bytes, dtype=np.float64)


def bytes_between_nodes(change: Moves, expert_bytes: float) -> Floats:
    """Return [nodes, nodes]: bytes of weights from node to node, 0 on the diagonal."""
    members = len(change.experts) // change.nodes
    by_node = change.experts.reshape(change.nodes, members, change.nodes, members).sum(axis=(1, 3))
    np.fill_diagonal(by_node, 0)
    return np.asarray(by_node * expert_bytes, dtype=np.float64)


def drifted(shares: Floats, fresh: Floats, log_correlation: ArrayLike) -> Floats:
    """Return shares [..., E] that correlate with `shares`; `fresh` are independent of them.

    ln s' = c ln s + sqrt(1 - c^2) ln fresh, about the mean logarithm. For lognormal shares this
    keeps the law and c is the correlation of the logarithms; `log_correlation`, one number or one
    per layer [...], follows from that of the shares by `log_correlation_of`.
    """
    c = np.asarray(log_correlation, dtype=np.float64)[..., None]
    logs = c * _centred_log(shares) + np.sqrt(1 - c**2) * _centred_log(fresh)
    weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def log_correlation_of(correlation: ArrayLike, cv: float) -> Floats:
    """Return the correlation of logarithms that lognormal shares of correlation rho have.

    rho = (exp(c sigma^2) - 1) / (exp(sigma^2) - 1), so c = ln(1 + rho cv^2) / ln(1 + cv^2).
    """
    rho = np.asarray(correlation, dtype=np.float64)
    return np.asarray(np.log1p(rho * cv**2) / np.log1p(cv**2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalancing:
    """When a placement is made anew, and from which loads."""

    interval: int
    """Iterations from one rebalancing to the next."""
    window: int
    """Iterations before it whose counts are summed."""
    delay: int = 0
    """Iterations from the last of the window to the placement being in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What rebalanced layers did over iterations."""

    rank_rows: Counts
    """[iterations, ..., ranks]"""
    placements: tuple[Placement, ...]
    """The first, and one per rebalancing."""
    starts: tuple[int, ...]
    """The iteration from which each placement is in force."""


def rebalanced(counts: Counts, plan: Rebalancing, rule: Rule, room: Room) -> History:
    """Return the rank loads of counts [iterations, ..., E], placed anew at intervals.

    Dimensions between the two are layers, placed apart. The first placement knows nothing: it is
    the rule's for even loads.
    """
    iterations = len(counts)
    placements, starts = [rule(np.ones(counts.shape[1:]), room)], [0]
    for start in range(plan.interval, iterations, plan.interval):
        seen = counts[max(0, start - plan.delay - plan.window) : max(0, start - plan.delay)]
        if len(seen):
            placements.append(rule(seen.sum(axis=0), room))
            starts.append(start)
    ends = [*starts[1:], iterations]
    parts = [
        rank_loads(counts[start:end], placement)
        for placement, start, end in zip(placements, starts, ends, strict=True)
    ]
    return History(
        rank_rows=np.concatenate(parts), placements=tuple(placements), starts=tuple(starts)
    )


def _holds(slots: Counts, experts: int) -> NDArray[np.bool_]:
    """Return [layers, ranks, E]: whether a rank holds an expert."""
    holds = np.zeros((*slots.shape[:2], experts + 1), dtype=bool)
    np.put_along_axis(holds, slots, True, axis=2)  # an empty slot, -1, is the last column
    return holds[..., :experts]


def _changed(before: Counts, after: Counts) -> int:
    """Return the filled slots of `after` with another expert; all, where the shapes differ."""
    filled = after >= 0
    return int((filled & (before != after) if before.shape == after.shape else filled).sum())


def _centred_log(shares: Floats) -> Floats:
    logs = np.log(np.maximum(shares, SMALLEST_SHARE))
    return np.asarray(logs - logs.mean(axis=-1, keepdims=True))
