"""Rows from rank to rank in one dispatch, by implementation, counted token by token.

A row is one token's hidden vector; times the bytes of a row it is what goes over the wire. The
diagonals hold the rows that stay where they are: they cost no wire but are in the sums, so the
columns of the last hop add up to what each rank holds afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.moe.choices import Choices
from moesim.moe.loads import Counts
from moesim.moe.packing import number_among_equals
from moesim.moe.placed_rows import replica_numbers, slot_rows_by_source
from moesim.moe.placement import Placement, replicas

Matrix = NDArray[np.int64] | NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hops:
    """One exchange: rows [sender rank, receiver rank] over each kind of link."""

    between: Matrix
    """From node to node; the diagonal of a two-hop exchange stays for the second hop."""
    inside: Matrix
    """Inside the nodes; the diagonal stays on its rank."""
    forwards: bool = False
    """Whether what went between nodes then goes on inside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """One micro-batch: where its tokens are, and which rank computes each of their choices."""

    source: NDArray[np.int64]
    """[tokens] rank that holds the token."""
    target: NDArray[np.int64]
    """[tokens, k] rank of the expert; -1 where a choice is dropped or absent."""
    ranks: int
    nodes: int = 1


def routed(
    choices: Choices, source: Counts, placement: Placement, *, nodes: int = 1, etp: int = 1
) -> Routed:
    """Return the targets of choices under one layer's placement on ep ranks.

    A choice that was dropped is -1, like one that a token has not. Rows of an expert go to its
    replicas in turn, as in placed_rows.py. With expert tensor parallelism an expert lies on etp
    ranks, ep position i on ranks i etp .. (i + 1) etp - 1, and a token first goes to the one in
    its own place; `gathered_over_etp` gives the second hop.
    """
    experts = choices.experts
    flat = placement.expert_of_slot.reshape(1, -1)
    copies = replicas(placement)
    slot = np.full((placement.experts, int(copies.max())), -1, dtype=np.int64)
    held = flat[0] >= 0
    slot[flat[0][held], replica_numbers(placement).ravel()[held]] = np.flatnonzero(held)
    order = np.argsort(source, kind="stable")
    rows = np.empty_like(experts)
    rows[order] = number_among_equals(experts[order].reshape(1, -1)).reshape(experts.shape)
    some = np.maximum(experts, 0)
    holder = slot[some, rows % copies[some]] // placement.expert_of_slot.shape[1]
    target = np.where(experts < 0, -1, holder * etp + source[:, None] % etp)
    ranks = placement.expert_of_slot.shape[0] * etp
    return Routed(source=source, target=target, ranks=ranks, nodes=nodes)


def alltoall(batch: Routed) -> Hops:
    """Return one copy per assignment, straight to the rank of the expert.

    Source: Megatron-LM MoEAlltoAllTokenDispatcher, token_dispatcher.py @d98e8a64.
    """
    source = np.broadcast_to(batch.source[:, None], batch.target.shape)
    return by_tier(_matrix(source, batch.target, batch.ranks), batch.nodes)


def deduplicated(batch: Routed) -> Hops:
    """Return one copy per distinct rank of a token, straight to it."""
    source = np.broadcast_to(batch.source[:, None], batch.target.shape)
    return by_tier(_matrix(source, _distinct(batch.target), batch.ranks), batch.nodes)


def deepep(batch: Routed) -> Hops:
    """Return one copy per distinct node, to the rank in the sender's place, then forwarded.

    Inside the node it goes on to each distinct rank. Source: deepseek-ai/DeepEP README @dd758ca.
    """
    members = batch.ranks // batch.nodes
    rail = batch.source[:, None] % members
    node = np.where(batch.target < 0, -1, batch.target // members)
    entered = _distinct(node)
    entry = np.where(entered < 0, -1, entered * members + rail)
    source = np.broadcast_to(batch.source[:, None], batch.target.shape)
    return Hops(
        between=_matrix(source, entry, batch.ranks),
        inside=_matrix(node * members + rail, _distinct(batch.target), batch.ranks),
        forwards=True,
    )


def allgather(batch: Routed) -> Hops:
    """Return every token on every rank: once into each node, then to all ranks of it.

    Source: Megatron-LM MoEAllGatherTokenDispatcher, token_dispatcher.py @d98e8a64.
    """
    members = batch.ranks // batch.nodes
    held = np.bincount(batch.source, minlength=batch.ranks)
    return gathered(held, members)


IMPLEMENTATIONS: dict[str, Callable[[Routed], Hops]] = {
    "alltoall": alltoall,
    "deduplicated": deduplicated,
    "deepep": deepep,
    "allgather": allgather,
}
"""The implementations of a dispatch by name; `padded` follows slots, not tokens."""


def gathered(held: Matrix, members: int) -> Hops:
    """Return the hops that bring `held[rank]` rows of each rank to all, in nodes of `members`."""
    ranks = len(held)
    rank = np.arange(ranks)
    same_rail = rank[:, None] % members == rank % members
    same_node = rank[:, None] // members == rank // members
    between = np.where(same_rail, held[:, None], 0)
    inside = np.where(same_node, between.sum(axis=0)[:, None], 0)
    return Hops(between=between, inside=inside, forwards=True)


def alltoall_of_counts(
    counts: Counts, placement: Placement, *, nodes: int = 1, etp: int = 1
) -> Hops:
    """Return `alltoall` of counts[source rank, expert], without knowing single tokens."""
    by_holder = slot_rows_by_source(counts, placement).sum(axis=2)
    sources, holders = by_holder.shape
    source = np.arange(sources)
    matrix = np.zeros((sources, holders, etp), dtype=np.int64)
    matrix[source, :, source % etp] = by_holder
    return by_tier(matrix.reshape(sources, holders * etp), nodes)


def padded(slots: int | Counts, placement: Placement, *, nodes: int = 1, etp: int = 1) -> Hops:
    """Return an all-to-all of [E, C, d] buffers: C rows per rank and expert, whatever the load.

    Source: Fedus et al. 2022 (Switch), section 5.4; C are the slots of an expert for what one
    rank holds, the same for all ranks or [source rank].
    """
    ranks = placement.expert_of_slot.shape[0] * etp
    full = np.full((placement.experts, ranks), slots, dtype=np.int64).T
    return alltoall_of_counts(full, placement, nodes=nodes, etp=etp)


def gathered_over_etp(hops: Hops, etp: int) -> Matrix:
    """Return the rows that the etp ranks of each expert then gather from each other.

    Each rank hands what it got, its own included, to all etp ranks: the diagonal is what it had.
    Source: Megatron-LM MoEAlltoAllTokenDispatcher, token_dispatcher.py @d98e8a64.
    """
    arrived = hops.inside.sum(axis=0)
    if not hops.forwards:
        arrived = arrived + hops.between.sum(axis=0)
    rank = np.arange(len(arrived))
    return np.where(rank[:, None] // etp == rank // etp, arrived[:, None], 0)


def in_every_place(hops: Hops, etp: int) -> Hops:
    """Return hops between ep positions as hops between ranks, each to the one in its own place.

    Every rank of a position sends what `hops` says of the position.
    """
    places = np.eye(etp, dtype=np.int64)
    between, inside = (np.kron(matrix, places) for matrix in (hops.between, hops.inside))
    return Hops(between=between, inside=inside, forwards=hops.forwards)


def combine(hops: Hops) -> Hops:
    """Return the way back of the same rows: the transposes, inside before between."""
    return Hops(between=hops.between.T, inside=hops.inside.T)


def on_wire(matrix: Matrix) -> Matrix:
    """Return the matrix without the rows that stay on their rank."""
    sent = matrix.copy()
    np.fill_diagonal(sent, 0)
    return sent


def by_tier(matrix: Matrix, nodes: int) -> Hops:
    """Split rows that go straight by whether they leave their node."""
    node = np.arange(len(matrix)) * nodes // len(matrix)
    inside = node[:, None] == node
    return Hops(between=np.where(inside, 0, matrix), inside=np.where(inside, matrix, 0))


def _distinct(values: Counts) -> Counts:
    """Return the values of each row with all but the first of equal ones replaced by -1."""
    equal = values[:, :, None] == values[:, None, :]
    repeated = np.tril(equal, k=-1).any(axis=2)
    return np.where(repeated, -1, values)


def _matrix(sender: Counts, receiver: Counts, ranks: int) -> Counts:
    """Count the pairs (sender, receiver), those without receiver left out."""
    sent = receiver >= 0
    pairs = sender[sent] * ranks + receiver[sent]
    return np.bincount(pairs, minlength=ranks * ranks).reshape(ranks, ranks)
