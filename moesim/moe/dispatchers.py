"""What dispatch and combine put on the wire: rows sent per token, by dispatcher."""

from collections.abc import Callable
from dataclasses import dataclass

from moesim.moe.fan_out import typical_reach
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


DISPATCHERS: dict[str, Callable[[Destinations], Rows]] = {
    "alltoall": alltoall,
    "allgather": allgather,
    "deepep": deepep,
}
"""The dispatchers by their name in YAML."""
