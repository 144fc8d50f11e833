"""Fully sharded data parallelism: weights gathered before use, gradients scattered after.

Units are the layers and, as one root unit, the ends of the network. Of each unit a rank holds a
share; before the forward pass of a layer its weights are gathered over the shard group, before its
backward pass again unless they were kept, and its gradients are reduce-scattered after; every
micro-batch does so anew. The root is gathered once per forward pass and kept until its gradients
are reduced at the end. Source: PyTorch `fully_shard` (FSDP2), reshard_after_forward: true for
layers, false for the root, the next unit gathered beside the present one; arXiv 2304.11277, 3.3.

    after a layer = together(free, gather of the next + scatter of the one before) - free

where free is the layer's time on all but the network of these transfers; together runs transfers at
`rate` of their speed and the layer at 1 - `taken`, the units that communication kernels occupy
(two_streams.py). With none taken that is max(0, transfers - rate * free). The first gather and
the last scatter stand alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moesim.cost.exchange_overlap import together_s
from moesim.cost.layout import FullSharding
from moesim.cost.parameters import StageParams
from moesim.cost.times import Known, Part, Stream
from moesim.cost.two_streams import Interference
from moesim.model.operators import CollectiveKind

GATHERING = "weight gathering"
REDUCTION = "gradient reduction"

Transfer = Callable[[CollectiveKind, float, str], Known]
"""Prices a collective of so many bytes over the group of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTimes:
    """Seconds of a unit's collectives, each alone on its network."""

    gather_s: float = 0.0
    reduce_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedPass:
    """What the passes of a chunk need to know of its units."""

    rule: FullSharding
    root: UnitTimes
    units: tuple[UnitTimes, ...]
    """One per block of the chunk; blocks at the ends of the network have none of their own."""
    stream: Stream
    """The network that gathers and scatters run on."""
    rate: float
    """Rate of transfers beside compute, as a share of their rate alone."""
    taken: float = 0.0
    """Share of the compute units that transfers take meanwhile."""


def gathered_bytes(params: StageParams, bytes_per_param: float) -> tuple[float, float]:
    """Return the bytes of a unit's dense weights and of its experts that a gather ends with."""
    return params.dense * bytes_per_param, params.routed_experts * bytes_per_param


def unit_times(
    params: StageParams, weight_bytes: float, gradient_bytes: float, transfer: Transfer
) -> UnitTimes:
    """Return the times of a unit: dense weights go over one group, experts over another."""
    groups = ("fsdp", "expert_fsdp")
    gather = zip(gathered_bytes(params, weight_bytes), groups, strict=True)
    scatter = zip(gathered_bytes(params, gradient_bytes), groups, strict=True)
    return UnitTimes(
        gather_s=sum(transfer("all_gather", size, name).seconds for size, name in gather),
        reduce_s=sum(transfer("reduce_scatter", size, name).seconds for size, name in scatter),
    )


def sharded_forward(blocks: Sequence[list[Part]], cut: ShardedPass) -> list[Part]:
    """Return the parts of a forward pass, with what of the gathers does not hide.

    A chunk may have no block: a layout can leave one empty.
    """
    if not blocks:
        return _alone(cut, cut.root.gather_s, GATHERING)
    gathers = [unit.gather_s for unit in cut.units]
    parts = _alone(cut, cut.root.gather_s + gathers[0], GATHERING)
    for own, following_s in zip(blocks, [*gathers[1:], 0.0], strict=True):
        parts += own
        parts += _beside(own, cut, following_s if cut.rule.prefetch else 0.0, 0.0)
        parts += [] if cut.rule.prefetch else _alone(cut, following_s, GATHERING)
    return parts


def sharded_backward(blocks: Sequence[list[Part]], cut: ShardedPass) -> list[Part]:
    """Return the parts of a backward pass; `blocks` are in its order, the last block first."""
    if not blocks:
        return _alone(cut, cut.root.reduce_s, REDUCTION)
    units = cut.units[::-1]
    again = [unit.gather_s if cut.rule.reshard else 0.0 for unit in units]
    parts = _alone(cut, again[0], GATHERING)
    waiting_s = 0.0
    for own, unit, following_s in zip(blocks, units, [*again[1:], 0.0], strict=True):
        beside = (
            following_s if cut.rule.prefetch else 0.0,
            waiting_s if cut.rule.overlap_reduce else 0.0,
        )
        parts += own
        parts += _beside(own, cut, *beside)
        parts += [] if cut.rule.prefetch else _alone(cut, following_s, GATHERING)
        parts += [] if cut.rule.overlap_reduce else _alone(cut, waiting_s, REDUCTION)
        waiting_s = unit.reduce_s
    return parts + _alone(cut, waiting_s + cut.root.reduce_s, REDUCTION)


def _alone(cut: ShardedPass, seconds: float, name: str) -> list[Part]:
    return [Part(cut.stream, name, seconds)] if seconds else []


def _beside(own: list[Part], cut: ShardedPass, gather_s: float, reduce_s: float) -> list[Part]:
    """Return what transfers beside a block add to it, shared out by their lengths."""
    both_s = gather_s + reduce_s
    if both_s == 0.0:
        return []
    free_s = sum(part.seconds for part in own if part.stream != cut.stream)
    cost = Interference(rate=cut.rate, taken=cut.taken)
    left = (together_s(free_s, both_s, cost) - free_s) / both_s
    return _alone(cut, left * gather_s, GATHERING) + _alone(cut, left * reduce_s, REDUCTION)
