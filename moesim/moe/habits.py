"""What a code base does besides its capacity formula; a rule may say otherwise.

Sources, beside those of the formulas in capacity.py:
megatron   router.py (policy probs), token_dispatcher.py (pads only on demand)
deepspeed  sharded_moe.py top1gating (random token selection), top2gating (cumsum of first, then of
           second choices), topkgating (probs per expert); layer.py (minimum 4)
tutel      fast_dispatch.py: cumsum choice by choice, buffers [experts, capacity]
megablocks moe.py: a stable sort by expert after all tokens have crossed the network
switch     mesh_tensorflow/transformer/moe.py: cumsum along the group; minimum 4; padding tokens
           (importance 0) are not routed
flaxformer routing.py: choices are the leading axis of one cumsum; moe_layers.py: minimum 4
gshard     arXiv 2006.16668, Algorithm 1: one loop for first, one for second choices
fairseq    top1gate.py, top2gate.py: as gshard; padding tokens are masked out
deepseek_v2 report section 2.2.4: lowest affinities of a device are dropped, nothing is padded
"""

from dataclasses import dataclass
from types import MappingProxyType

ALWAYS = 2**31
"""More choices than any token has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How one code base treats tokens beyond the capacity."""

    counts_k: bool = True
    """Whether its formula multiplies by top-k."""
    min_slots: int = 0
    """The fewest slots its formula gives."""
    scope: str = "rank"
    """Whose tokens are a routing group, unless a number of tokens is given."""
    policies: tuple[str, str, str] = ("position", "position", "position")
    """Its default drop policy for one choice, two, and more."""
    by_choice_up_to: int = 0
    """Up to how many choices all first ones are placed before the second ones."""
    pads: bool = True
    """Whether expert buffers are padded to the slots."""
    sends: str = "slots"
    """What crosses the network: all slots, the kept rows, or the routed ones (dropped later)."""
    padding_tokens_occupy_capacity: bool = True
    """Whether padding tokens are routed like others."""
    per_device: bool = False
    """Whether the slots are those of a device, shared by its experts."""


HABITS = MappingProxyType(
    {
        "megatron": Habits(policies=("probs", "probs", "probs"), pads=False, sends="kept"),
        "deepspeed": Habits(
            min_slots=4, policies=("random", "position", "probs"), by_choice_up_to=2
        ),
        "tutel": Habits(by_choice_up_to=ALWAYS),
        "megablocks": Habits(scope="world", sends="routed"),
        "switch": Habits(
            counts_k=False,
            min_slots=4,
            by_choice_up_to=ALWAYS,
            padding_tokens_occupy_capacity=False,
        ),
        "flaxformer": Habits(counts_k=False, min_slots=4, by_choice_up_to=ALWAYS),
        "gshard": Habits(by_choice_up_to=ALWAYS),
        "fairseq": Habits(by_choice_up_to=ALWAYS, padding_tokens_occupy_capacity=False),
        "deepseek_v2": Habits(
            scope="world",
            policies=("probs", "probs", "probs"),
            pads=False,
            sends="kept",
            per_device=True,
        ),
    }
)
"""The habits by the name of the formula."""


def own_policy(formula: str, top_k: int) -> str:
    """Return which assignments the code base drops, unless told otherwise."""
    return HABITS[formula].policies[min(top_k, 3) - 1]


def by_choice(formula: str, top_k: int) -> bool:
    """Return whether first choices of all tokens are placed before any second choice."""
    return top_k <= HABITS[formula].by_choice_up_to
