"""What dispatch and combine put on the wire: rows sent per token, by dispatcher."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from moesim.moe.fan_out import typical_reach
from moesim.moe.gating.gate import Level, Link
from moesim.moe.traffic import Destinations


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the hidden width that one rank sends per token it holds, its own share left out."""

    scale_up: float
    scale_out: float


def alltoall(where: Destinations) -> Rows:
    """Return one copy per assignment, sent straight to the rank of the expert.

    Source: Megatron-LM MoEAlltoAllTokenDispatcher, token_dispatcher.py @d98e8a64.
    """
    per_domain = where.ranks / where.domains
    away = where.top_k * (1 - 1 / where.domains)
    near = where.top_k * (per_domain - 1) / where.ranks
    return Rows(scale_up=near, scale_out=away)


def allgather(where: Destinations) -> Rows:
    """Return every token gathered on every rank of the group, whatever its experts.

    A token crosses to each other domain once; inside, each rank hands on what it got from there.

    Source: Megatron-LM MoEAllGatherTokenDispatcher, token_dispatcher.py @d98e8a64.
    """
    per_domain = where.ranks / where.domains
    return Rows(scale_up=where.domains * (per_domain - 1), scale_out=where.domains - 1)


def deepep(where: Destinations) -> Rows:
    """Return one copy per destination domain over scale-out, then one per destination rank.

    Source: deepseek-ai/DeepEP README @dd758ca: tokens cross the network once per node and are
    forwarded inside it.
    """
    reach = typical_reach(where)
    ranks, domains = reach.ranks, reach.domains
    # inside the domain the copy that lands on its own rank needs no second hop
    return Rows(
        scale_up=ranks * (1 - where.domains / where.ranks),
        scale_out=domains * (1 - 1 / where.domains),
    )


def linked(levels: tuple[Level, ...], domains: int) -> tuple[Level, ...]:
    """Return the levels with a link each.

    Left out it is scale_up at the last level, and at the others scale_out where the experts lie in
    several domains: a group of experts is then a node.
    """
    upper: Link = "scale_out" if domains > 1 else "scale_up"
    defaults = [*[upper] * (len(levels) - 1), "scale_up"]
    return tuple(
        replace(level, link=level.link or default)
        for level, default in zip(levels, defaults, strict=True)
    )


def hierarchical(
    levels: tuple[Level, ...], entered: tuple[float, ...], ranks: int
) -> tuple[Rows, ...]:
    """Return the rows of the exchange of each level: one copy per part that a token enters.

    Level i has P_i parts in all, on L_i = min(P_i, ranks) ranks or groups of ranks. A token enters
    n_i of them, from where it is in the part above: n_i (1 - L_(i-1) / L_i) rows leave their place.

    Source: Shazeer et al. 2017 (arXiv 1701.06538), appendix B; mesh-tensorflow
    transformer_moe_layer_v2, an all-to-all over the groups and one inside each.
    """
    found, above, parts = [], 1, 1
    for level, copies in zip(levels, entered, strict=True):
        parts *= level.fanout
        places = min(parts, ranks)
        rows = copies * (1 - above / places)
        found.append(Rows(0.0, rows) if level.link == "scale_out" else Rows(rows, 0.0))
        above = places
    return tuple(found)


DISPATCHERS: dict[str, Callable[[Destinations], Rows]] = {
    "alltoall": alltoall,
    "allgather": allgather,
    "deepep": deepep,
    "hybridep": deepep,
}
"""The dispatchers by their name in YAML; HybridEP sends the same rows as DeepEP, by other kernels
(deepseek-ai/DeepEP, branch hybrid-ep)."""

UNSORTED = frozenset({"deepep", "hybridep"})
"""Dispatchers that take tokens as they are; only where they arrive are they sorted by expert.

Source: Megatron-LM MoEFlexTokenDispatcher, whose dispatch_preprocess reshapes and moves nothing
(megatron-core 0.16.1, transformer/moe/token_dispatcher.py).
"""


def rows_by(dispatcher: str, where: Destinations, copies: float) -> Rows:
    """Return the rows per token that a dispatcher sends where a token makes `copies` of its row.

    `copies` is top-k for a dropless layer, less where tokens are dropped or make fewer choices,
    more where buffers are padded. Everybody's rows are gathered whatever they choose, and DeepEP
    and HybridEP have no padded buffers to send.
    """
    rows = DISPATCHERS[dispatcher](where)
    share = copies / where.top_k
    if dispatcher == "allgather":
        return rows
    if dispatcher in UNSORTED:
        share = min(1.0, share)
    return Rows(rows.scale_up * share, rows.scale_out * share)
