"""What one micro-batch sends in the first MoE layer: rows and bytes from rank to rank."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from moesim import rng
from moesim.cost.pricing import value_bytes
from moesim.moe import byte_matrices as matrices
from moesim.moe.assignment import Drawn, Router
from moesim.moe.byte_matrices import Hops, Matrix
from moesim.moe.choices import Choices, parts_reached, split_tokens
from moesim.moe.counts import draw_choices
from moesim.moe.dispatchers import Rows, hierarchical, linked
from moesim.moe.expected_matrices import EXPECTED
from moesim.moe.fan_out import Reach, distinct, parts_of, typical_reach
from moesim.moe.gating.gate import Gate, Level
from moesim.moe.gating.table import choose
from moesim.moe.habits import HABITS
from moesim.moe.kept_rows import is_padded
from moesim.moe.placement import Placement
from moesim.moe.traffic import Destinations
from moesim.study.resolve import Training

MOST_SCORES = 2**22
"""Scores of a token for an expert drawn at most: so many tokens stand for all."""
MOST_PARTS = 64
"""Rows and columns of a matrix at most; beyond, ranks are taken together by domain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One micro-batch of the first MoE layer, token by token."""

    router: Router
    placement: Placement
    drawn: Drawn
    choices: Choices
    """Of the tokens sampled; -1 where one was dropped."""
    batch: matrices.Routed
    weight: float
    """Tokens that each sampled one stands for."""
    etp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What one dispatcher puts on the wire, [sender, receiver] without what stays on a rank."""

    dispatcher: str
    dispatch_bytes: Matrix
    combine_bytes: Matrix
    expected_bytes: Matrix | None
    """Of the dispatch, in closed form; None where there is none."""
    scale_up_bytes: float
    """Of dispatch and combine together, over all ranks."""
    scale_out_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the first MoE layer sends under each dispatcher."""

    ranks: int
    """Ranks that exchange tokens, those of expert tensor parallelism included."""
    ranks_per_part: int
    """Ranks taken together in a row or column of the matrices."""
    own: str
    """What the scenario's dispatcher sends: its name, or `padded`."""
    reach: Reach
    """Distinct ranks and domains of a token, as placed."""
    sendings: tuple[Sending, ...]
    levels: tuple[Rows, ...]
    """Rows per token of each level of a hierarchy; empty where there is none."""


def traffic(
    run: Training, where: Destinations, *, router: Router, drawn: Drawn, placement: Placement
) -> Traffic:
    """Return what one layer sends for one micro-batch, drawn token by token."""
    sample = _sampled(run, where, router=router, drawn=drawn, placement=placement)
    parts = parts_of_ranks(sample.batch.ranks, where.domains)
    return Traffic(
        ranks=sample.batch.ranks,
        ranks_per_part=sample.batch.ranks // parts,
        own=_own(run, router),
        reach=_reach(sample),
        sendings=tuple(
            _sending(one, sample, where, run) for one in _hops(sample)
        ),
        levels=_levels(sample, where, run),
    )  # fmt: skip


def _own(run: Training, router: Router) -> str:
    """Return the name under which what the scenario's dispatcher sends is found."""
    if is_padded(router.capacity) and run.layout.dispatcher == "alltoall":
        return "padded"
    same_rows = {"hybridep": "deepep"}
    return same_rows.get(run.layout.dispatcher, run.layout.dispatcher)


def parts_of_ranks(ranks: int, domains: int) -> int:
    """Return into how many equal parts ranks are taken together: each its own, else by domain."""
    if ranks <= MOST_PARTS:
        return ranks
    blocks = domains if domains > 1 else ranks
    return max(part for part in range(1, MOST_PARTS + 1) if blocks % part == 0)


def _sampled(
    run: Training, where: Destinations, *, router: Router, drawn: Drawn, placement: Placement
) -> Sampled:
    etp = run.layout.etp
    ranks = router.ranks * etp
    local = max(1, min(router.tokens // ranks, MOST_SCORES // (router.experts * ranks)))
    stream = rng.stream(run.scenario.seed, f"{run.title}/traffic of the first layer")
    tokens = local * ranks
    choices = _kept(_chosen(router, drawn, where, tokens=tokens, stream=stream), drawn, stream)
    source = np.repeat(np.arange(ranks), local)
    return Sampled(
        router=router, placement=placement, drawn=drawn, choices=choices, etp=etp,
        batch=matrices.routed(choices, source, placement, nodes=where.domains, etp=etp),
        weight=router.tokens / tokens,
    )  # fmt: skip


def _chosen(
    router: Router, drawn: Drawn, where: Destinations, *, tokens: int, stream: np.random.Generator
) -> Choices:
    """Return what tokens choose: by the rule, by the model's group limit, or as often as drawn."""
    if router.gate is not None:
        return choose(router.rule, router.gate, drawn.shares, tokens, generator=stream)
    if 1 <= where.groups_per_token < where.groups:
        gate = Gate(
            experts=router.experts, top_k=router.top_k, groups=where.groups,
            groups_per_token=where.groups_per_token,
        )  # fmt: skip
        return choose("deepseek_v3", gate, drawn.shares, tokens, generator=stream)
    return draw_choices(drawn.routed / router.tokens, tokens, stream)


def _kept(choices: Choices, drawn: Drawn, stream: np.random.Generator) -> Choices:
    """Drop choices at random, as often as the layer's experts dropped them."""
    stays = drawn.kept / np.maximum(1, drawn.routed)
    found = choices.experts
    kept = stream.random(found.shape) < stays[np.maximum(found, 0)]
    return replace(choices, experts=np.where(kept, found, -1))


@dataclass(frozen=True, slots=True)
class _Counted:
    """The rows of one dispatcher, and for how many each stands."""

    dispatcher: str
    hops: Hops
    weight: float


def _hops(sample: Sampled) -> list[_Counted]:
    """Return the rows by dispatcher; padded ones too where experts have slots."""
    found = [
        _Counted(name, rule(sample.batch), sample.weight)
        for name, rule in matrices.IMPLEMENTATIONS.items()
    ]
    rule = sample.router.capacity
    if rule is not None and not HABITS[rule.formula].per_device:
        slots = split_tokens(sample.drawn.slots, sample.batch.ranks)
        nodes, etp = sample.batch.nodes, sample.etp
        hops = matrices.padded(slots, sample.placement, nodes=nodes, etp=etp)
        found.append(_Counted("padded", hops, 1.0))
    return found


def _sending(counted: _Counted, sample: Sampled, where: Destinations, run: Training) -> Sending:
    narrow, wide = row_bytes(run)
    there = _bytes(counted, sample, row=narrow, gathered_row=wide)
    back = _bytes(counted, sample, row=wide, gathered_row=wide)
    hoped = expected_hops(counted.dispatcher, sample, where)
    expected = None
    if hoped is not None:
        uncounted = _Counted(counted.dispatcher, hoped, 1.0)
        expected = _bytes(uncounted, sample, row=narrow, gathered_row=wide)
    parts = parts_of_ranks(sample.batch.ranks, where.domains)
    return Sending(
        dispatcher=counted.dispatcher,
        dispatch_bytes=_together(there, parts),
        combine_bytes=_together(matrices.combine(back), parts),
        expected_bytes=None if expected is None else _together(expected, parts),
        scale_up_bytes=float(there.inside.sum() + back.inside.sum()),
        scale_out_bytes=float(there.between.sum() + back.between.sum()),
    )


def row_bytes(run: Training) -> tuple[float, float]:
    """Return the bytes of a token's row on its way to an expert, and on its way back."""
    hidden, shard = run.architecture.hidden, run.job.shard
    narrow = shard.dispatch_dtype or shard.wide
    return hidden * value_bytes(narrow), hidden * value_bytes(shard.wide)


def _bytes(counted: _Counted, sample: Sampled, *, row: float, gathered_row: float) -> Hops:
    """Return bytes on the wire; what etp ranks gather from each other travels in the wide type."""
    hops, per_row = counted.hops, counted.weight * row
    between = matrices.on_wire(hops.between) * per_row
    inside = matrices.on_wire(hops.inside) * per_row
    if sample.etp > 1 and counted.dispatcher != "allgather":  # has every row on all ranks already
        rows = matrices.on_wire(matrices.gathered_over_etp(hops, sample.etp))
        gathered = matrices.by_tier(rows * (counted.weight * gathered_row), sample.batch.nodes)
        between, inside = between + gathered.between, inside + gathered.inside
    return Hops(between=between, inside=inside, forwards=hops.forwards)


def expected_hops(name: str, sample: Sampled, where: Destinations) -> Hops | None:
    """Return the rows in closed form for uniform choices, as many as were kept.

    Fewer choices than k are taken to thin out what k choices reach, as the step's times have it.
    """
    if name not in EXPECTED:
        return None
    router, etp = sample.router, sample.etp
    tokens = router.tokens / sample.batch.ranks
    if name == "allgather":
        return EXPECTED[name](replace(where, ranks=sample.batch.ranks), tokens, _NOWHERE)
    share = int(sample.drawn.kept.sum()) / (router.tokens * router.top_k)
    found = EXPECTED[name](where, tokens * share, typical_reach(where))
    return matrices.in_every_place(found, etp)


_NOWHERE = Reach(ranks=0.0, domains=0.0)


def _together(hops: Hops, parts: int) -> Matrix:
    """Return both hops as one matrix, ranks taken together in equal parts."""
    matrix = hops.between + hops.inside
    size = len(matrix) // parts
    return np.asarray(matrix.reshape(parts, size, parts, size).sum(axis=(1, 3)))


def _reach(sample: Sampled) -> Reach:
    batch = sample.batch
    rank = np.arange(batch.ranks)
    position, node = rank // sample.etp, rank * batch.nodes // batch.ranks
    return Reach(
        ranks=float(distinct(parts_of(batch.target, position)).mean()),
        domains=float(distinct(parts_of(batch.target, node)).mean()),
    )


def _levels(sample: Sampled, where: Destinations, run: Training) -> tuple[Rows, ...]:
    """Return the rows of each level; node-limited routing is a hierarchy of nodes and experts."""
    gate, experts = sample.router.gate, sample.router.experts
    levels = gate.levels if gate is not None else ()
    if any(level.link == "scale_out" for level in levels) and where.domains == 1:
        raise run.scenario.error(
            "routing.gating.levels",
            f"link scale_out, but the {where.ranks} expert-parallel ranks lie in one scale-up "
            "domain",
        )
    if not levels and where.groups > 1:
        levels = (
            Level(fanout=where.groups, limit=where.groups_per_token),
            Level(fanout=experts // where.groups, limit=where.top_k),
        )
    parts = [prod(level.fanout for level in levels[: depth + 1]) for depth in range(len(levels))]
    entered = tuple(float(parts_reached(sample.choices, experts, n).mean()) for n in parts)
    return hierarchical(linked(levels, where.domains), entered, where.ranks) if levels else ()
