"""Context parallelism: how ranks that share a sequence come by the keys of the others."""

from dataclasses import replace
from typing import Literal

from moesim.model.operators import AttentionCore, Collective, CollectiveKind, Operator
from moesim.model.shapes import Shape, Shard

ContextComm = Literal["ring", "all_gather", "all_to_all"]


def over_ranks(
    core: AttentionCore, kv_width: int, shape: Shape, shard: Shard, *, sees_all: bool
) -> list[Operator]:
    """Return attention over a sequence that cp ranks share, with what moves around it.

    `core` is a rank's share of the queries, `kv_width` the elements of its keys and values per
    token. ring: cp - 1 turns, each sends one rank's keys and values on while those of the turn
    before are used. all_gather: all keys and values first. all_to_all: queries, keys and values of
    all tokens for 1/cp of the heads, and the results back; key/value heads fewer than ranks are
    sent to several. A ring needs that every query sees all keys before it: where `sees_all` is
    false, a window or an index, keys are gathered.

    Source: Megatron-LM --cp-comm-type p2p, all_gather, a2a; TransformerEngine
    pytorch/attention/dot_product_attention/context_parallel.py (from memory, unchecked). The passes
    that join a ring's partial results are not counted.
    """
    if shard.cp == 1:
        return [core]
    per_token = float(shard.wide_bytes * shape.sequences * shape.length)
    if shard.cp_comm == "all_to_all":
        return _heads_apart(core, per_token / shard.cp, kv_width, shard.cp)
    if shard.cp_comm == "ring" and sees_all:
        sent = per_token / shard.cp * kv_width
        return [_moved("cp_ring", "send", sent, count=shard.cp - 1), core]
    return [_moved("cp_all_gather", "all_gather", per_token * kv_width), core]


def _heads_apart(core: AttentionCore, local_bytes: float, kv_width: int, cp: int) -> list[Operator]:
    """Return attention of 1/cp of the heads over the whole sequence (arXiv 2309.14509)."""
    query, value = core.heads * core.qk_dim, core.heads * core.v_dim
    copied = max(1.0, cp / core.kv_heads)
    whole = replace(
        core, queries=core.queries * cp, own_keys=core.own_keys * cp, pairs=core.pairs * cp,
        heads=core.heads // cp, kv_heads=max(1, core.kv_heads // cp),
    )  # fmt: skip
    return [
        _moved("cp_heads", "all_to_all", local_bytes * (query + copied * kv_width)),
        whole,
        _moved("cp_tokens", "all_to_all", local_bytes * value),
    ]


def _moved(name: str, kind: CollectiveKind, payload: float, count: int = 1) -> Collective:
    return Collective(
        name=name, module="core_attn", kind=kind, group="cp", payload_bytes=payload, count=count
    )
