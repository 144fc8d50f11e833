"""What to expect of each rule: the mean assignments of each expert per token, without drawing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from moesim.errors import ModelError
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.gshard import gshard_load
from moesim.moe.gating.hashed import hash_load
from moesim.moe.gating.hierarchy import part_shares
from moesim.moe.gating.inclusion import gumbel_normal, plackett_luce
from moesim.moe.gating.nested import level_gate
from moesim.moe.gating.scores import Array, log_popularity
from moesim.moe.gating.token_choice import jitter_noise

Expectation = Callable[[Gate, Array], Array]


def softmax_topk(gate: Gate, shares: Array) -> Array:
    """Return P(e among k Plackett-Luce choices)."""
    return plackett_luce(shares, gate.top_k)


def noisy_topk(gate: Gate, shares: Array) -> Array:
    """Return P(e among the k best logits with Gumbel taste and Gaussian noise on them)."""
    return _with_noise(gate, shares, gate.top_k, gate.noise)


def gshard_top2(gate: Gate, shares: Array) -> Array:
    """Return the mean of first and second choices that are sent: `gshard.gshard_load`."""
    return gshard_load(gate, shares)


def switch_top1(gate: Gate, shares: Array) -> Array:
    """Return P(e is the best, after jitter)."""
    return _with_noise(gate, shares, 1, jitter_noise(gate))


def st_moe(gate: Gate, shares: Array) -> Array:
    """Return P(e among the k best, after jitter)."""
    return _with_noise(gate, shares, gate.top_k, jitter_noise(gate))


def expert_choice(gate: Gate, shares: Array) -> Array:
    """Return CF / E for every expert, whatever its popularity (rounding of slots left out)."""
    del shares
    return np.full(gate.experts, gate.capacity_factor / gate.experts)


def base(gate: Gate, shares: Array) -> Array:
    """Return 1 / E for every expert, whatever its popularity."""
    del shares
    return np.full(gate.experts, 1.0 / gate.experts)


def hash(gate: Gate, shares: Array) -> Array:
    """Return the summed frequencies of the token ids that are mapped to each expert."""
    return hash_load(gate, shares)


def deepseek_v2(gate: Gate, shares: Array) -> Array:
    """Return k / E for equal shares, the Plackett-Luce probability without a group limit."""
    limited = gate.groups > 1 and gate.groups_per_token < gate.groups
    return _equal_or_unlimited(gate, shares, limited=limited)


def deepseek_v3(gate: Gate, shares: Array) -> Array:
    """Return k / E for equal shares, the Plackett-Luce probability without group limit and bias.

    A bias that was fitted to the shares (`bias.balance_bias`) flattens the load to k / E too.
    """
    biased = float(np.ptp(gate.bias)) > 0 if gate.bias else False
    if biased:
        raise ModelError("no closed form with a bias; one fitted to the load flattens it to k / E")
    return deepseek_v2(gate, shares)


def hierarchical(gate: Gate, shares: Array) -> Array:
    """Return the product of inclusion probabilities from level to level; levels choose apart."""
    if gate.shared_router:
        limited = any(
            level.limit < np.prod([upper.fanout for upper in gate.levels[: depth + 1]])
            for depth, level in enumerate(gate.levels[:-1])
        )
        return _equal_or_unlimited(gate, shares, limited=limited)
    found = np.ones(1)
    for depth, level in enumerate(gate.levels):
        inside = part_shares(shares, gate.levels, depth)
        chosen = np.stack([plackett_luce(part, level.limit) for part in inside])
        found = (found[:, np.newaxis] * chosen).ravel()
    return found


def mtf_v2(gate: Gate, shares: Array) -> Array:
    """Return first groups times top-2 loads inside, plus second groups that are sent times shares.

    Its sum is 1 + E[q inside] + q outside: a first group runs 1 or 2 experts, a second group one.
    """
    upper = part_shares(shares, gate.levels, 0)[0]
    inside = part_shares(shares, gate.levels, 1)
    level = replace(gate, normalise=True, levels=())
    as_second = gshard_load(level, upper) - upper
    within = np.stack([gshard_load(level, part) for part in inside])
    return np.asarray((upper[:, np.newaxis] * within + as_second[:, np.newaxis] * inside).ravel())


def nested(gate: Gate, shares: Array) -> Array:
    """Return the product of the expectations of each level's own rule."""
    found = np.ones(1)
    for depth, level in enumerate(gate.levels):
        inside = part_shares(shares, gate.levels, depth)
        own = level_gate(gate, level)
        chosen = np.stack([_LEVELS[level.rule](own, part) for part in inside])
        found = (found[:, np.newaxis] * chosen).ravel()
    return found


_LEVELS: dict[str, Expectation] = {
    "softmax_topk": softmax_topk,
    "noisy_topk": noisy_topk,
    "base": base,
}

EXPECTED: dict[str, Expectation] = {
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
"""Expected assignments per token and expert, under the names of `GATES`."""


def expected_load(name: str, gate: Gate, shares: Array) -> Array:
    """Return the expected assignments of each expert per token; ModelError where none is known."""
    return EXPECTED[name](gate, shares)


def _with_noise(gate: Gate, shares: Array, top_k: int, noise: float) -> Array:
    return gumbel_normal(
        gate.sharpness * log_popularity(shares), top_k, gumbel=gate.sharpness, normal=noise
    )


def _equal_or_unlimited(gate: Gate, shares: Array, *, limited: bool) -> Array:
    if not limited:
        return plackett_luce(shares, gate.top_k)
    if float(np.ptp(shares)) > 1e-12 * float(shares.max()):
        raise ModelError("no closed form for unequal shares under a group limit: draw tokens")
    return np.full(gate.experts, gate.top_k / gate.experts)
