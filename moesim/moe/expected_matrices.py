"""Rows from rank to rank in the mean over choices, in closed form, by implementation.

Each rank holds equally many tokens and no rank is preferred; with F(G) the fan-out over G parts
(`Reach` of fan_out.py), a token reaches a given rank with probability F(ranks) / ranks and a given
node with F(nodes) / nodes. The names and the two hops are those of byte_matrices.py.
"""

from collections.abc import Callable

import numpy as np

from moesim.moe.byte_matrices import Hops, by_tier, gathered
from moesim.moe.fan_out import Reach
from moesim.moe.traffic import Destinations


def alltoall(where: Destinations, tokens: float, reach: Reach) -> Hops:
    """Return T k / G rows for every pair of ranks."""
    del reach
    return _even(where, tokens * where.top_k / where.ranks)


def deduplicated(where: Destinations, tokens: float, reach: Reach) -> Hops:
    """Return T F(G) / G rows for every pair of ranks."""
    return _even(where, tokens * reach.ranks / where.ranks)


def deepep(where: Destinations, tokens: float, reach: Reach) -> Hops:
    """Return T F(N) / N rows into every node on the sender's rail, then on to its ranks.

    A rank forwards what the N ranks of its rail sent: N T F(G) / G rows to each rank of its node.
    """
    members = where.ranks // where.domains
    rank = np.arange(where.ranks)
    same_rail = rank[:, None] % members == rank % members
    same_node = rank[:, None] // members == rank // members
    into_node = tokens * reach.domains / where.domains
    onwards = where.domains * tokens * reach.ranks / where.ranks
    return Hops(
        between=np.where(same_rail, into_node, 0.0),
        inside=np.where(same_node, onwards, 0.0),
        forwards=True,
    )


def allgather(where: Destinations, tokens: float, reach: Reach) -> Hops:
    """Return every token on every rank, whatever its choices."""
    del reach
    return gathered(np.full(where.ranks, float(tokens)), where.ranks // where.domains)


EXPECTED: dict[str, Callable[[Destinations, float, Reach], Hops]] = {
    "alltoall": alltoall,
    "deduplicated": deduplicated,
    "deepep": deepep,
    "allgather": allgather,
}
"""Destinations, tokens per rank and reach to expected rows, by the names of IMPLEMENTATIONS."""


def _even(where: Destinations, rows: float) -> Hops:
    return by_tier(np.full((where.ranks, where.ranks), rows), where.domains)
