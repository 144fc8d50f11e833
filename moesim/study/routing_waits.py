"""What the fullest rank costs: rows, seconds and activation bytes, layer by layer and in all."""

from dataclasses import dataclass

import numpy as np

from moesim.cost.experts import block_kept_bytes, experts_s
from moesim.cost.pricing import machine
from moesim.errors import ProfileError
from moesim.moe.loads import Counts
from moesim.moe.straggler import Straggler, Values, excess, straggler
from moesim.study.resolve import Training
from moesim.study.routing import MoeLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Who is waited for in one micro-batch, forward, and what experts keep for the way back."""

    rows: Straggler
    """Of the rows that ranks compute."""
    excesses: Values
    """[layers] (fullest - mean) / mean rows."""
    lasting: Values
    """[layers] the same of the experts' popularity: what more tokens would not even out."""
    seconds: Straggler | None
    """Of the experts' products and activation; None where the profile cannot price them."""
    kept_bytes: Straggler
    """Of the activations that the MoE block keeps."""


def waits(
    found: list[MoeLayer], rows: list[Counts], expected: list[Values], run: Training
) -> Waits:
    """Return what ranks wait for; `rows` [ranks, slots per rank] of each layer are computed.

    `expected` [ranks] of each layer is what the long-run shares of its experts would give ranks.

    Ranks meet after every layer, so the maxima add up; memory is that of one rank, so for it the
    maximum of the sums counts.
    """
    by_rank = np.stack([layer.sum(axis=1) for layer in rows])
    return Waits(
        rows=straggler(by_rank),
        excesses=excess(by_rank),
        lasting=excess(np.stack(expected)),
        seconds=_seconds(found, rows, run),
        kept_bytes=straggler(_kept(found, by_rank, run)),
    )


def _seconds(found: list[MoeLayer], rows: list[Counts], run: Training) -> Straggler | None:
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    known: dict[tuple[object, ...], float] = {}
    values = np.zeros((len(rows), len(rows[0])))
    try:
        for number, (layer, by_slot) in enumerate(zip(found, rows, strict=True)):
            for rank, slots in enumerate(by_slot.tolist()):
                key = (layer.ffn, layer.shape, *sorted(slots))
                if key not in known:
                    known[key] = experts_s(layer.ffn, layer.shape, tuple(slots), job=run.job, on=on)
                values[number, rank] = known[key]
    except ProfileError:
        return None
    return straggler(values)


def _kept(found: list[MoeLayer], by_rank: Counts, run: Training) -> Values:
    """Return [layers, ranks] bytes, which are linear in the rows of a rank."""
    kept = np.zeros(by_rank.shape)
    for number, layer in enumerate(found):
        none, one = (block_kept_bytes(layer.ffn, layer.shape, rows, job=run.job) for rows in (0, 1))
        kept[number] = none + (one - none) * by_rank[number]
    return kept
