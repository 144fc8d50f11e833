"""The loads of one layer in every micro-batch of a step.

How popular an expert is changes slowly: halves of one domain correlate by 0.96 to 0.998
(DeepSeek-V2-Lite), hot experts stay for tens to hundreds of iterations (TensorRT-LLM
tech_blog/blog4). So all micro-batches of a step share the popularity of the experts and where these
lie, and each draws its own tokens: independent ones, bursts, sequences of domains, or passages of a
trace. A capacity counts over the tokens of one micro-batch (ceil(tokens * top_k / E * factor) of
the local micro-batch, megatron-core moe_utils.py), so drops are counted in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.moe.assignment import (
    Drawn,
    Group,
    LayerLoad,
    Router,
    counts_of,
    drawn_of,
    groups_of,
    load_of,
    on_ranks,
    placed,
    shares_of,
    wanting_tokens,
)
from moesim.moe.batch_counts import draw_batches
from moesim.moe.gating.sampling import FAST
from moesim.moe.kept_rows import computed_rows, sent_rows
from moesim.moe.loads import Counts, Shares
from moesim.moe.placement import Placement

Values = NDArray[np.float64]

MOST_COUNTS = 2**22
"""Counts of experts, or scores of tokens where these are routed one by one, that all layers of a
step draw at most; micro-batches beyond see the loads of earlier ones again, in turn."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VariedLoad:
    """What routing did in one layer in each micro-batch of a step."""

    first: LayerLoad
    """That of the first micro-batch."""
    low: LayerLoad
    """That of the micro-batch which is spread most evenly over the ranks."""
    high: LayerLoad
    """That of the micro-batch whose fullest rank has most, compared with the mean."""
    heights: Values
    """[micro-batches] where each lies between the two: 0 at low, 1 at high."""
    rank_rows: Counts
    """[drawn, ranks] rows that the ranks compute; micro-batch i has those of i % drawn."""
    imbalances: Values
    """[micro-batches] fullest over mean of the rows that the ranks are sent."""
    routed: int
    """Assignments in all micro-batches together; routed = computed + dropped."""
    computed: int
    dropped: int
    drawn: int
    """How many micro-batches have loads of their own."""


def affordable(router: Router, micro_batches: int, layers: int) -> int:
    """Return how many micro-batches draw loads of their own, of so many and in so many layers."""
    groups = _groups(router)
    each = len(groups) * router.experts
    if router.gate is not None and router.rule not in FAST:
        each = sum(tokens for tokens, _ in groups) * router.experts
    return max(1, min(micro_batches, MOST_COUNTS // (each * layers)))


def vary(
    router: Router, micro_batches: int, generator: np.random.Generator, *, layers: int = 1
) -> VariedLoad:
    """Return the loads of one of so many layers in so many micro-batches."""
    draws = affordable(router, micro_batches, layers)
    drawn, placement = draw_apart(router, draws, generator)
    routed, kept = (np.stack([getattr(one, of) for one in drawn]) for of in ("routed", "kept"))
    slots = np.array([one.slots for one in drawn])[:, np.newaxis]
    here = computed_rows(router.capacity, kept, slots, router.block_rows)
    rows, sent = (
        on_ranks(of, router, placement).sum(axis=-1)
        for of in (here, sent_rows(router.capacity, routed, kept, slots))
    )
    sent_imbalance = _imbalances(sent)
    heights = (_imbalances(rows) + sent_imbalance) / 2
    low, high = int(heights.argmin()), int(heights.argmax())
    span = heights[high] - heights[low]
    turn = np.arange(micro_batches) % draws
    return VariedLoad(
        first=load_of(router, drawn[0], placement),
        low=load_of(router, drawn[low], placement),
        high=load_of(router, drawn[high], placement),
        heights=((heights - heights[low]) / span if span > 0 else np.zeros(draws))[turn],
        rank_rows=rows,
        imbalances=sent_imbalance[turn],
        routed=int(routed.sum(axis=1)[turn].sum()),
        computed=int(kept.sum(axis=1)[turn].sum()),
        dropped=int((routed - kept).sum(axis=1)[turn].sum()),
        drawn=draws,
    )


def draw_apart(
    router: Router, draws: int, generator: np.random.Generator
) -> tuple[list[Drawn], Placement | None]:
    """Return the rows of so many micro-batches, and where the experts lie in all of them."""
    shares = shares_of(router, generator)
    drawn = _drawn(router, shares, draws, generator)
    return drawn, placed(router, shares, generator)


def _groups(router: Router) -> list[tuple[int, int]]:
    """Return the groups of a micro-batch that draw apart, as (tokens, groups it stands for).

    Without a capacity and a gate that balances a group by itself, only the sum matters.
    """
    if router.capacity is None and router.gate is None:
        return [(router.tokens, 1)]
    return groups_of(router)


def _drawn(
    router: Router, shares: Shares, draws: int, generator: np.random.Generator
) -> list[Drawn]:
    groups = _groups(router)
    counts = _counts(router, shares, draws, generator)
    if router.capacity is None and router.gate is None:
        return [
            Drawn(shares=shares, routed=one, kept=one, slots=0, fullest=int(one.max()))
            for (one,) in counts
        ]
    found = []
    for wanted in counts:
        of = [Group(*size, one) for size, one in zip(groups, wanted, strict=True)]
        found.append(drawn_of(router, shares, of, generator))
    return found


def _counts(
    router: Router, shares: Shares, draws: int, generator: np.random.Generator
) -> list[list[Counts]]:
    """Return the counts that the groups of each micro-batch want."""
    wanting = [wanting_tokens(router, tokens) for tokens, _ in _groups(router)]
    if router.mixed is not None:
        return [
            counts_of(_of_batch(router, number), shares, wanting, generator)
            for number in range(draws)
        ]
    sizes = np.array(wanting * draws, dtype=np.int64)
    if router.gate is not None and router.phi is None:
        flat: Sequence[Counts] = counts_of(router, shares, sizes.tolist(), generator)
    else:
        flat = list(draw_batches(shares, sizes, router.top_k, generator, phi=router.phi))
    each = len(wanting)
    return [list(flat[n * each : (n + 1) * each]) for n in range(draws)]


def _of_batch(router: Router, number: int) -> Router:
    """Return the router of one micro-batch: its sequences are of other domains than the others'."""
    if router.mixed is None or number == 0:
        return router
    seed, name = router.mixed.composition
    mixed = replace(router.mixed, composition=(seed, f"{name}/micro-batch {number}"))
    return replace(router, mixed=mixed)


def _imbalances(rows: Counts) -> Values:
    """Return fullest over mean of each row; 1 where nothing is."""
    mean = rows.mean(axis=1)
    return np.asarray(np.where(mean > 0, rows.max(axis=1) / np.where(mean > 0, mean, 1.0), 1.0))
