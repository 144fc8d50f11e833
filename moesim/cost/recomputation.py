"""What the backward pass computes again, and which inputs are therefore not kept."""

from collections.abc import Iterable

from moesim.model.operators import (
    Collective,
    Compute,
    Exchange,
    GroupedGemm,
    Operator,
    saved_bytes,
    state_bytes,
)

_ALSO = {
    "moe": ("moe", "moe_act", "dispatch", "router", "shared"),
    "shared_experts": ("shared",),
}
"""Megatron's module `moe` is the whole block: router, experts and shared experts; its module
`shared_experts` those alone (Megatron-LM --recompute-modules)."""


def recomputed_modules(names: Iterable[str]) -> frozenset[str]:
    """Return the modules whose outputs are not kept, inner ones included."""
    return frozenset(inner for name in names for inner in _ALSO.get(name, (name,)))


def again(operators: list[Operator], recompute: tuple[str, ...]) -> list[Operator]:
    """Return the forward operators that run again in the backward pass."""
    if "full" in recompute:
        return operators
    modules = recomputed_modules(recompute)
    return [operator for operator in operators if operator.module in modules]


def kept_bytes(operators: list[Operator], recompute: tuple[str, ...]) -> float:
    """Return the bytes of activations that stay from forward to backward pass.

    With full recomputation only the input of the first operator, the layer's input, is kept.
    """
    compute = [op for op in operators if not isinstance(op, Collective | Exchange)]
    if "full" in recompute:
        return saved_bytes(compute[0]) if compute else 0.0
    return _kept(compute, recompute)


def routed_kept_bytes(operators: list[Operator], recompute: tuple[str, ...]) -> float:
    """Return what of the kept bytes is in proportion to the rows of the rank's experts."""
    if "full" in recompute:
        return 0.0
    experts = [op for op in operators if isinstance(op, GroupedGemm) or op.module == "moe_act"]
    return kept_bytes(experts, recompute)


def _kept(compute: list[Compute], recompute: tuple[str, ...]) -> float:
    modules = recomputed_modules(recompute)
    inputs = sum(saved_bytes(op) for op in compute if op.input_from not in modules)
    return inputs + sum(state_bytes(op) for op in compute if op.module not in modules)
