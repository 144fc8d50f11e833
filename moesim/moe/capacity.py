"""Expert capacity: how many tokens an expert accepts from a routing group before it drops the rest.

Each formula is what one code base computes; they differ in whether top-k counts and how they round.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass


def megatron(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return ceil(tokens * top_k / experts * factor).

    Source: NVIDIA/Megatron-LM megatron/core/transformer/moe/moe_utils.py:248 @d98e8a64.
    """
    return math.ceil(tokens * top_k / experts * factor)


def deepspeed(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return ceil(tokens / experts * factor * top_k).

    Source: microsoft/DeepSpeed deepspeed/moe/sharded_moe.py:161,331,406 @38327e07.
    """
    return math.ceil(tokens / experts * factor * top_k)


def tutel(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return top_k * int(factor * ceil(tokens / experts)).

    Source: microsoft/Tutel tutel/impls/fast_dispatch.py:187 @ac0e51b9.
    """
    return top_k * int(factor * math.ceil(tokens / experts))


def megablocks(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return int(factor * top_k * tokens / experts); `tokens` are those of the whole ep group.

    Source: databricks/megablocks megablocks/layers/moe.py:133 @78eea65f.
    """
    return int(factor * top_k * tokens / experts)


def switch(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return int(tokens * factor / experts), at most `tokens`; top-k does not count.

    Source: tensorflow/mesh mesh_tensorflow/transformer/moe.py @da907937.
    """
    del top_k
    return min(tokens, int(tokens * factor / experts))


def flaxformer(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return round(factor * tokens / experts); top-k does not count.

    Source: google/flaxformer flaxformer/architectures/moe/moe_layers.py:175 @399ea3a8.
    """
    del top_k
    return round(factor * tokens / experts)


FORMULAS: dict[str, Callable[[int, int, int, float], int]] = {
    "megatron": megatron,
    "deepspeed": deepspeed,
    "tutel": tutel,
    "megablocks": megablocks,
    "switch": switch,
    "flaxformer": flaxformer,
}
"""The name in YAML, the name of the function and the documented name are one word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityRule:
    """How many slots an expert has for one routing group."""

    factor: float
    formula: str = "megatron"
    min_slots: int = 1
    group_tokens: int | None = None
    """Tokens of a routing group; None: those that one rank holds of a micro-batch."""
    pad: bool = False
    """Whether buffers are padded to the capacity: bytes and expert rows follow the slots."""


def slots(rule: CapacityRule, tokens: int, experts: int, top_k: int) -> int:
    """Return the slots of one expert for a routing group of `tokens` tokens."""
    return max(rule.min_slots, FORMULAS[rule.formula](tokens, experts, top_k, rule.factor))
