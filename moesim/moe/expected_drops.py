"""The share of assignments that a router drops on average: in closed form, else by Monte Carlo."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.moe import drops
from moesim.moe.assignment import (
    Router,
    by_device,
    counts_of,
    kept_of,
    shares_of,
    slots_of,
    wanting_tokens,
)
from moesim.moe.counts import inclusion
from moesim.moe.gating.sampling import FAST
from moesim.moe.loads import even_counts

ALIKE = (
    "softmax_topk", "noisy_topk", "switch_top1", "st_moe", "deepseek_v2", "deepseek_v3",
    "hierarchical",
)  # fmt: skip
"""Rules by which tokens choose k distinct experts, each apart from the others, experts alike."""

DRAWS = {"plain": 1000, "fast": 200, "tokens": 100}
"""Draws of a Monte Carlo at most, by how counts are drawn."""
_MAX_SCORES = {"drawn": 2**25, "measured": 2**22}
"""Scores of a token for an expert in all draws, where tokens choose one by one; measured shares
are others in every layer but do not scatter from draw to draw."""
FEWEST = 4
"""Draws that a Monte Carlo needs at least."""

Drawn = tuple[NDArray[np.int64], np.random.Generator]
"""Counts [draw, expert] of a routing group, and a stream for what the capacity draws."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over independent draws and its standard error."""

    mean: float
    standard_error: float
    draws: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The dropped share to expect of a layer, before it is drawn."""

    fraction: float
    kind: str
    """closed form or monte carlo."""
    standard_error: float = 0.0
    """Of a Monte Carlo; 0 for a closed form."""


def expected_drops(router: Router, drawn: Callable[[], Drawn]) -> Expected | None:
    """Return the dropped share of a whole routing group, over shares of the load law if drawn.

    `drawn` gives the groups of `draw_groups` where no closed form is known. None where too few of
    them are affordable: groups of millions of scores under rules that route token by token.
    """
    found = closed_form(router)
    if found is not None:
        return Expected(fraction=found, kind="closed form")
    if affordable_draws(router) < FEWEST:
        return None
    here = monte_carlo(router, drawn())
    return Expected(fraction=here.mean, kind="monte carlo", standard_error=here.standard_error)


def closed_form(router: Router) -> float | None:
    """Return the dropped share where the loads of single experts have a known law, else None."""
    limit = slots_of(router, router.group_tokens)
    if limit is None:
        return 0.0
    if router.phi is not None or router.mixed is not None:
        return None
    tokens = wanting_tokens(router, router.group_tokens)
    if router.law.law == "even" and not router.shares:
        return _even_form(router, tokens, limit)
    if by_device(router):
        return _device_form(router, limit)
    if router.shares:
        return _measured_form(router, tokens, limit)
    if is_uniform(router):
        return drops.uniform(tokens, router.experts, router.top_k, limit)
    if router.law.law == "dirichlet" and (router.gate is None or router.top_k == 1):
        if router.rule not in ("softmax_topk", "switch_top1"):
            return None
        alike = drops.concentration_for(router.experts, router.law.cv)
        return drops.dirichlet(tokens, router.experts, router.top_k, limit, alike)
    return None


def is_uniform(router: Router) -> bool:
    """Return whether every expert is as likely to be among the k distinct choices of any token."""
    equal = router.law.law == "uniform" or (
        router.law.law in ("dirichlet", "lognormal") and router.law.cv < drops.SMALLEST_CV
    )
    both = router.gate is not None and router.gate.second_policy in ("all", "sampling")
    k_of_all = router.rule in ALIKE or (router.rule == "gshard_top2" and both)
    return equal and k_of_all and not router.shares and router.phi is None


def _even_form(router: Router, tokens: int, limit: int) -> float:
    """Return the share of counts that differ by one at most, by expert or by rank."""
    rows, rule = even_counts(tokens, router.experts, router.top_k), router.capacity
    if by_device(router) and rule is not None:
        rows = rows.reshape(router.ranks, -1).sum(axis=1)
        spared = np.ceil(rule.spared_fraction * rows).astype(np.int64)
        return float((rows - np.minimum(rows, np.maximum(limit, spared))).sum() / rows.sum())
    return float((rows - np.minimum(rows, limit)).sum() / rows.sum())


def _measured_form(router: Router, tokens: int, limit: int) -> float | None:
    """Return the share for measured shares where tokens choose experts by nothing else."""
    if router.gate is not None and router.top_k > 1:
        return None
    if router.rule not in ("softmax_topk", "switch_top1"):
        return None
    return drops.of_inclusions(tokens, inclusion(np.asarray(router.shares), router.top_k), limit)


def _device_form(router: Router, budget: int) -> float | None:
    rule = router.capacity
    if rule is None or rule.spared_fraction or not is_uniform(router):
        return None
    if router.rule in ("deepseek_v2", "deepseek_v3", "hierarchical"):
        return None  # their choices lie together on few devices
    tokens = wanting_tokens(router, router.group_tokens)
    size = (tokens, router.experts, router.top_k)
    return drops.device_uniform(*size, devices=router.ranks, budget=budget)


def affordable_draws(router: Router) -> int:
    """Return how many draws of one routing group take no longer than the study itself."""
    if router.gate is None or router.phi is not None:
        return DRAWS["plain"] // (10 if router.shares else 1)
    if router.rule in FAST and router.gate.second_policy != "sampling":
        return DRAWS["fast"] // (10 if router.shares else 1)
    scores = _MAX_SCORES["measured" if router.shares else "drawn"]
    return min(DRAWS["tokens"], scores // (router.group_tokens * router.experts))


def draw_groups(
    router: Router, tokens: int, draws: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return counts [draw, expert] of `tokens` tokens, each draw with shares of its own."""
    found = np.empty((draws, router.experts), dtype=np.int64)
    for draw in range(draws):
        shares = shares_of(router, generator)
        found[draw] = counts_of(router, shares, [tokens], generator)[0]
    return found


def monte_carlo(router: Router, drawn: Drawn) -> Estimate:
    """Return the dropped share of a routing group from counts that its wanting tokens have."""
    counts, generator = drawn
    kept = np.empty(len(counts))
    for draw, wanted in enumerate(counts):
        limit = slots_of(router, router.group_tokens, int(wanted.max()))
        kept[draw] = kept_of(router, wanted, limit, generator).sum()
    return estimate(1.0 - kept / np.maximum(1, counts.sum(axis=1)))


def estimate(found: NDArray[np.float64]) -> Estimate:
    """Return the mean of independent values and its standard error."""
    error = float(found.std(ddof=1)) / len(found) ** 0.5
    return Estimate(mean=float(found.mean()), standard_error=error, draws=len(found))
