"""Every gating rule under its name in YAML."""

from collections.abc import Callable

import numpy as np

from moesim.errors import ModelError
from moesim.moe.choices import Choices
from moesim.moe.gating.balanced import base, expert_choice
from moesim.moe.gating.gate import Gate, problems, unknown
from moesim.moe.gating.gshard import gshard_top2
from moesim.moe.gating.hashed import hash
from moesim.moe.gating.hierarchy import hierarchical, mtf_v2
from moesim.moe.gating.limited import deepseek_v2, deepseek_v3
from moesim.moe.gating.nested import nested
from moesim.moe.gating.scores import Array
from moesim.moe.gating.token_choice import noisy_topk, softmax_topk, st_moe, switch_top1

Rule = Callable[[Gate, Array, int, np.random.Generator], Choices]
"""From a gate, the shares of its experts (hash: of token ids) and a number of tokens."""

GATES: dict[str, Rule] = {
    "softmax_topk": softmax_topk,
    "noisy_topk": noisy_topk,
    "gshard_top2": gshard_top2,
    "switch_top1": switch_top1,
    "st_moe": st_moe,
    "expert_choice": expert_choice,
    "base": base,
    "hash": hash,
    "deepseek_v2": deepseek_v2,
    "deepseek_v3": deepseek_v3,
    "hierarchical": hierarchical,
    "mtf_v2": mtf_v2,
    "nested": nested,
}
"""The name in YAML, the name of the function and the documented name are one word."""


def choose(
    name: str, gate: Gate, shares: Array, tokens: int, *, generator: np.random.Generator
) -> Choices:
    """Return the choices of `tokens` tokens under the rule `name`, drawn with `generator`."""
    if name not in GATES:
        raise unknown(name, tuple(GATES))
    found = problems(name, gate)
    if name != "hash" and len(shares) != gate.experts:
        found = (*found, f"{len(shares)} shares for {gate.experts} experts")
    if found:
        raise ModelError(f"gating {name}: " + "; ".join(found))
    return GATES[name](gate, shares, tokens, generator)
