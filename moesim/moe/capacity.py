"""Expert capacity: how many tokens an expert accepts from a routing group before it drops the rest.

Each formula is what one code base computes; they differ in whether top-k counts and how they round.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moesim.moe.habits import HABITS


def megatron(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return ceil(tokens * top_k / experts * factor).

    Source: NVIDIA/Megatron-LM megatron/core/transformer/moe/moe_utils.py:248 @d98e8a64.
    """
    return math.ceil(tokens * top_k / experts * factor)


def deepspeed(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return ceil(tokens / experts * (factor * top_k)), multiplied in single precision.

    The code multiplies a Python float by a float32 tensor, so 100 * 1.1 is 110 and not above it.

    Source: microsoft/DeepSpeed deepspeed/moe/sharded_moe.py:161,331,406 @38327e07.
    """
    return math.ceil(np.float32(tokens / experts) * np.float32(factor * top_k))


def tutel(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return top_k * int(|factor| * ceil(tokens / experts)).

    A factor of 0 means the fullest expert's load, a negative one at most that load: see `slots`.

    Source: microsoft/Tutel tutel/impls/fast_dispatch.py:187-199 @ac0e51b9.
    """
    return top_k * int(abs(factor) * math.ceil(tokens / experts))


def megablocks(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return int(factor * (top_k * tokens / experts)); `tokens` are those of the whole ep group.

    A result of 0 means the fullest expert's load: see `slots`.

    Source: databricks/megablocks megablocks/layers/moe.py:133-136,218-223 @78eea65f.
    """
    return int(factor * (top_k * tokens / experts))


def switch(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return int(tokens * factor / experts), at most `tokens`; top-k does not count.

    Source: tensorflow/mesh mesh_tensorflow/transformer/moe.py @da907937.
    """
    del top_k
    return min(tokens, int(tokens * factor / experts))


def flaxformer(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return round(factor * tokens / experts), halves to even; top-k does not count.

    Source: google/flaxformer flaxformer/architectures/moe/moe_layers.py:175 @399ea3a8.
    """
    del top_k
    return round(factor * tokens / experts)


def gshard(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return int(factor * top_k * tokens / experts); the paper has factor 1 and two choices.

    "Each group is given a fractional capacity 2N/(G E), to ensure that at most this many tokens
    are dispatched to an expert": the whole number of tokens that is at most 2 S / E.

    Source: GShard, section 2.2 and Algorithm 1, arXiv 2006.16668.
    """
    return int(factor * top_k * tokens / experts)


def fairseq(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return top_k * int(factor * ceil(tokens / experts)).

    Top-1 takes a factor, top-2 does not: there it is 1, 2 * ceil(tokens / experts). Evaluation has
    ceil(fraction * tokens) slots: mode `fraction`.

    Source: facebookresearch/fairseq fairseq/modules/moe/{top1gate,top2gate}.py, branch moe
    @ebea0072.
    """
    return top_k * int(factor * math.ceil(tokens / experts))


def deepseek_v2(tokens: int, experts: int, top_k: int, factor: float) -> int:
    """Return int(factor * top_k * tokens / devices); `experts` is the number of devices here.

    The slots are a device's: its experts share them, and the budget is not exceeded.

    Source: DeepSeek-V2 technical report, sections 2.2.4 and 3.1.2 (deepseek-ai/DeepSeek-V2
    @ec98ee3c), where the factor is 1.
    """
    return int(factor * top_k * tokens / experts)


FORMULAS: dict[str, Callable[[int, int, int, float], int]] = {
    "megatron": megatron,
    "deepspeed": deepspeed,
    "tutel": tutel,
    "megablocks": megablocks,
    "switch": switch,
    "flaxformer": flaxformer,
    "gshard": gshard,
    "fairseq": fairseq,
    "deepseek_v2": deepseek_v2,
}
"""The name in YAML, the name of the function and the documented name are one word."""

ROUNDINGS: dict[str, Callable[[float], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
}
"""Ways to make a whole number of slots; round takes halves to even."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityRule:
    """How many slots an expert has for one routing group, and what happens beyond them.

    Where a field is None the code base of the formula decides: see habits.py.
    """

    factor: float = 1.0
    """Slots over the mean load, in mode factor; 0 and below as tutel and megablocks read it."""
    formula: str = "megatron"
    """Whose formula and habits."""
    mode: str = "factor"
    """Where the slots come from: factor, absolute, fraction of the group's tokens, or none."""
    absolute: int = 0
    """The slots of mode absolute."""
    fraction: float = 1.0
    """The slots of mode fraction over the tokens of the group."""
    counts_k: bool | None = None
    """Whether the factor is multiplied by top-k."""
    rounding: str | None = None
    """floor, ceil or round, in place of the formula's own steps (ceil in mode fraction)."""
    min_slots: int | None = None
    """Fewest slots of modes factor, absolute and fraction."""
    alignment: int = 1
    """Slots are rounded up to a multiple of this."""
    group_tokens: int | None = None
    """Tokens of a routing group, in scope group."""
    scope: str | None = None
    """Whose tokens are a routing group: sequence, rank, group or world; see groups.py."""
    policy: str | None = None
    """Who is dropped: probs, position or random."""
    pad: bool | None = None
    """Whether buffers are padded to the capacity: bytes and expert rows follow the slots."""
    padding_tokens_occupy_capacity: bool | None = None
    """Whether padding tokens are routed; they count as tokens of the group in any case."""
    padding_fraction: float = 0.0
    """Share of the tokens of a group that are padding."""
    spared_fraction: float = 0.0
    """Share of the sequences whose tokens a device budget never drops."""


@dataclass(frozen=True, slots=True)
class _Group:
    """One routing group; `fullest` is the load of its fullest expert, or all tokens."""

    tokens: int
    experts: int
    top_k: int
    fullest: int


def slots(
    rule: CapacityRule, tokens: int, experts: int, top_k: int, *, fullest: int | None = None
) -> int:
    """Return the slots of one expert for a routing group of `tokens` tokens.

    Rules that follow the load (mode none, tutel's factor <= 0, a megablocks result of 0) give the
    load `fullest` of the fullest expert over all groups, or `tokens`, which no load exceeds. For
    deepseek_v2 give the number of devices as `experts`.
    """
    group = _Group(tokens, experts, top_k, tokens if fullest is None else fullest)
    found = MODES[rule.mode](rule, group)
    return -(-found // rule.alignment) * rule.alignment


def factor(rule: CapacityRule, group: _Group) -> int:
    """Return the slots by the rule's formula and factor."""
    counts_k = HABITS[rule.formula].counts_k if rule.counts_k is None else rule.counts_k
    if rule.rounding is not None:
        scale = group.top_k if counts_k else 1
        found = ROUNDINGS[rule.rounding](abs(rule.factor) * scale * group.tokens / group.experts)
    else:
        found = _by_formula(rule, group, counts_k=counts_k)
    if rule.formula == "tutel" and rule.factor <= 0:
        found = group.fullest if rule.factor == 0 else min(found, group.fullest)
    if rule.formula == "megablocks" and found == 0:
        found = group.fullest
    own = HABITS[rule.formula].min_slots
    return max(own if rule.min_slots is None else rule.min_slots, found)


def _by_formula(rule: CapacityRule, group: _Group, *, counts_k: bool) -> int:
    formula, own = FORMULAS[rule.formula], HABITS[rule.formula].counts_k
    top_k = group.top_k if counts_k or not own else 1
    scaled = rule.factor * group.top_k if counts_k and not own else rule.factor
    return formula(group.tokens, group.experts, top_k, scaled)


def absolute(rule: CapacityRule, group: _Group) -> int:
    """Return the number of slots that the rule states."""
    del group
    return max(rule.min_slots or 0, rule.absolute)


def fraction(rule: CapacityRule, group: _Group) -> int:
    """Return ceil(fraction * tokens), as fairseq's moe_eval_capacity_token_fraction."""
    found = ROUNDINGS[rule.rounding or "ceil"](rule.fraction * group.tokens)
    return max(rule.min_slots or 0, found)


def none(rule: CapacityRule, group: _Group) -> int:
    """Return the fullest expert's load: no token is dropped."""
    del rule
    return group.fullest


MODES: dict[str, Callable[[CapacityRule, _Group], int]] = {
    "factor": factor,
    "absolute": absolute,
    "fraction": fraction,
    "none": none,
}
"""Where the slots come from, by the name in YAML."""


def pads(rule: CapacityRule) -> bool:
    """Return whether expert buffers are padded to the slots."""
    return HABITS[rule.formula].pads if rule.pad is None else rule.pad
