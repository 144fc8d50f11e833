"""How likely each token of a queue loses each of its choices, where that has a closed form."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.moe import drops, habits, position_drops
from moesim.moe.assignment import Router, by_device
from moesim.moe.expected_drops import is_uniform
from moesim.moe.groups import padding_occupies
from moesim.moe.token_drops import Queue

Array = NDArray[np.float64]

SAMPLED = 33
"""Positions at which the law of placing by choice is worked out first."""
STEEP = 0.02
"""Where it rises by more than this between two positions, also half way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likely:
    """Drop probabilities of the tokens of a queue; NaN for padding that wants no slot."""

    by_token: Array
    """[tokens], of any of a token's choices."""
    by_choice: Array | None
    """[tokens, k]; None where choices differ by an unknown amount."""


def likely_drops(queue: Queue) -> Likely | None:
    """Return what position_drops.py says of a queue; None where its router has no closed form."""
    router = queue.router
    rule, k = router.capacity, router.top_k
    if rule is None or by_device(router):
        return None
    wants = ~queue.padding() | padding_occupies(rule)
    policy = rule.policy or habits.own_policy(rule.formula, k)
    by_choice = k > 1 and habits.by_choice(rule.formula, k)
    if _is_dirichlet(router):
        found = _dirichlet(router, int(wants.sum()), queue.slots, policy)
    elif is_uniform(router):
        found = _uniform(router, int(wants.sum()), queue.slots, (policy, by_choice))
    else:
        return None
    known = policy != "probs" or by_choice or k == 1
    every = np.full((queue.tokens, k), np.nan)
    every[wants] = found
    return Likely(by_token=every.mean(axis=1), by_choice=every if known else None)


def _is_dirichlet(router: Router) -> bool:
    plain = router.rule in ("softmax_topk", "switch_top1") and router.top_k == 1
    skewed = router.law.law == "dirichlet" and router.law.cv >= drops.SMALLEST_CV
    return plain and skewed and not router.shares and router.phi is None


def _dirichlet(router: Router, tokens: int, slots: int, policy: str) -> Array:
    alike = drops.concentration_for(router.experts, router.law.cv)
    if policy == "position":
        return position_drops.dirichlet(tokens, router.experts, slots, alike)[:, None]
    return np.full((tokens, 1), drops.dirichlet(tokens, router.experts, 1, slots, alike))


def _uniform(router: Router, tokens: int, slots: int, order: tuple[str, bool]) -> Array:
    """Return [tokens, k] for uniform choices; order: the policy, and whether choice by choice."""
    size = (tokens, router.experts, router.top_k, slots)
    policy, by_choice = order
    if not by_choice:
        one = position_drops.uniform if policy == "position" else position_drops.flat
        return np.repeat(one(*size)[:, None], router.top_k, axis=1)
    at, known = _sampled(size)
    every = np.stack([np.interp(np.arange(tokens), at, column) for column in known.T], axis=1)
    if policy == "position":
        return every
    return np.broadcast_to(every.mean(axis=0), every.shape)


def _sampled(size: tuple[int, int, int, int]) -> tuple[NDArray[np.int64], Array]:
    """Return positions, denser where the law of placing by choice rises, and its values there."""
    at = np.unique(np.linspace(0, size[0] - 1, min(size[0], SAMPLED)).astype(np.int64))
    known = position_drops.uniform_by_choice(*size, positions=at)
    while True:
        rises = np.abs(np.diff(known, axis=0)).max(axis=1)
        steep = np.flatnonzero((rises > STEEP) & (np.diff(at) > 1))
        if not len(steep):
            return at, known
        between = (at[steep] + at[steep + 1]) // 2
        values = position_drops.uniform_by_choice(*size, positions=between)
        at, known = np.insert(at, steep + 1, between), np.insert(known, steep + 1, values, axis=0)
