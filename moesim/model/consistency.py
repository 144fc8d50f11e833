"""Is an architecture possible at all? What no single key can tell."""

from moesim.errors import ModelError
from moesim.model.architecture import (
    Architecture,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    LinearAttention,
    MoeFfn,
)


def check(architecture: Architecture, model_type: str) -> None:
    """Raise ModelError where sizes contradict each other."""
    found = [
        problem
        for run in (*architecture.encoder, *architecture.decoder)
        for problem in problems_of(run.layer)
    ]
    if found:
        where = f"{architecture.source}: model_type '{model_type}'"
        raise ModelError(f"{where}: {'; '.join(dict.fromkeys(found))}")


def problems_of(layer: Layer) -> list[str]:
    """Return what is impossible about `layer`, in words."""
    problems = []
    attention = layer.attention
    if isinstance(attention, GroupedQueryAttention) and attention.heads % attention.kv_heads:
        problems.append(
            f"{attention.heads} heads cannot share {attention.kv_heads} key/value heads evenly"
        )
    if isinstance(attention, LinearAttention) and attention.value_heads % attention.key_heads:
        problems.append(
            f"{attention.value_heads} value heads cannot share {attention.key_heads} keys evenly"
        )
    if isinstance(attention, LatentAttention) and attention.indexer and not attention.q_lora_rank:
        problems.append("an indexer needs a q_lora_rank")
    if isinstance(layer.ffn, MoeFfn):
        problems.extend(_moe_problems(layer.ffn))
    return problems


def _moe_problems(moe: MoeFfn) -> list[str]:
    problems = []
    if moe.top_k > moe.num_experts:
        problems.append(f"top_k {moe.top_k} is more than the {moe.num_experts} experts")
    if moe.num_experts % moe.groups:
        problems.append(f"{moe.num_experts} experts do not divide into {moe.groups} groups")
    elif moe.groups_per_token > moe.groups:
        problems.append(f"a token reaches {moe.groups_per_token} of only {moe.groups} groups")
    elif moe.top_k > (reached := moe.groups_per_token * (moe.num_experts // moe.groups)):
        problems.append(f"top_k {moe.top_k} is more than the {reached} experts of its groups")
    return problems
