"""One cut of a model: the layers of one rank, priced once for all pipelines made of them."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moesim.cost.activations import chunk_activations
from moesim.cost.exchange_overlap import beside_each_other, one_after_the_other
from moesim.cost.host import waited_s
from moesim.cost.parameters import StageParams, add
from moesim.cost.pipeline import balanced, chunks, equal_sizes
from moesim.cost.pricing import Machine
from moesim.cost.stage import (
    Paced,
    backward_pass,
    beside_exchanges,
    cost_beside,
    forward_pass,
    paced_backward,
    paced_forward,
    pass_of,
)
from moesim.cost.times import PassCost
from moesim.cost.work import Block, blocks
from moesim.spec.schedule_names import SPLIT
from moesim.study.device_speeds import slower_pass
from moesim.study.resolve import Training
from moesim.study.split import even_loads


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long a pass takes: compute, which slow devices stretch, and the rest."""

    compute_s: float
    rest_s: float

    def on(self, slowness: float) -> float:
        """Return the seconds where compute takes `slowness` times as long."""
        return self.compute_s * slowness + self.rest_s


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """What one rank does for a chunk of layers and holds of it."""

    seconds: dict[str, Seconds]
    """Of passes by kind: F, B, and where a schedule splits the backward pass I and W."""
    found: tuple[Block, ...]
    layers: int
    kept_bytes: NDArray[np.float64]
    """Of one micro-batch, by the ranks of its experts where they differ."""
    working_bytes: float
    params: StageParams
    """Without the ends of the network, which a stage may share."""
    ends: tuple[bool, bool]
    """Whether the first and the last of the network lie in it."""


@dataclass(frozen=True, slots=True)
class BlockCost:
    """What one rank does for a block and holds of it."""

    passes: dict[str, Paced]
    seconds: dict[str, Seconds]
    """Without what the device waits for the host."""
    kept_bytes: NDArray[np.float64]
    working_bytes: float


Alike = dict[tuple[int, str], Paced]
"""Passes of blocks that recomputation does not change, by block and kind."""


@dataclass(slots=True)
class Cut:
    """A model cut by tp, cp, ep and etp, at one micro-batch and recomputation."""

    run: Training
    on: Machine
    found: list[Block]
    """Those of the whole network."""
    alike: Alike = field(default_factory=dict)
    """Shared by cuts that differ in recomputation alone."""
    before: int = 1
    """How many of them come before the first layer: the embedding."""
    chunks: dict[tuple[tuple[int, ...], bool, bool], ChunkCost] = field(default_factory=dict)
    blocks: dict[int, BlockCost] = field(default_factory=dict)
    sizes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    alone: dict[int, float] = field(default_factory=dict)
    """Seconds of a block, forward and backward."""
    pairs: dict[tuple[int, int, float], float] = field(default_factory=dict)

    def sizes_of(self, places: int) -> tuple[int, ...]:
        """Return the layers of each of `places` chunks, as a simulated run has them."""
        if places not in self.sizes:
            layers = self.run.architecture.num_layers
            found = equal_sizes(layers, places)
            if found is None:
                times = [self._both_s(block) for block in self.found[self.before :]]
                found = tuple(balanced(times[:layers], sum(times[layers:]), places))
            self.sizes[places] = found
        return self.sizes[places]

    def chunk(self, start: int, end: int, places: tuple[int, int]) -> ChunkCost:
        """Return the chunk of layers [start, end), number `places[0]` of `places[1]`."""
        first, last = places[0] == 0, places[0] == places[1] - 1
        layers = self.run.architecture.num_layers
        found = [*self.found[: self.before]] if first else []
        found += self.found[self.before + start : self.before + end]
        found += self.found[self.before + layers :] if last else []
        key = (tuple(map(id, found)), first, last)
        if key not in self.chunks:
            self.chunks[key] = self._chunk(found, (first, last))
        return self.chunks[key]

    def pair_s(self, forward: ChunkCost, backward: ChunkCost, slowness: float) -> float:
        """Return the seconds of a forward and a backward pass as one, on slower devices."""
        key = (id(forward), id(backward), slowness)
        if key not in self.pairs:
            both = self._pass(forward, "F"), self._pass(backward, "B")
            one, two = (slower_pass(each, slowness) for each in both)
            if self.run.job.exchange_overlap == "batch":
                found = beside_each_other(one, two, cost_beside(self.on))
            else:
                found = one_after_the_other(one, two)
            self.pairs[key] = found.seconds
        return self.pairs[key]

    def _pass(self, chunk: ChunkCost, kind: str) -> PassCost:
        ordered = chunk.found if kind == "F" else chunk.found[::-1]
        paced = [self._block(block).passes[kind] for block in ordered]
        return pass_of(paced, chunk.layers, self.on)

    def _chunk(self, found: list[Block], ends: tuple[bool, bool]) -> ChunkCost:
        priced = [self._block(block) for block in found]
        kept = sum((one.kept_bytes for one in priced), np.zeros(1))
        return ChunkCost(
            seconds={kind: self._seconds(priced, kind) for kind in self._kinds()},
            found=tuple(found),
            layers=sum(block.is_layer for block in found),
            kept_bytes=kept if np.ptp(kept) else kept[:1],
            working_bytes=max((one.working_bytes for one in priced), default=0.0),
            params=add([block.params for block in found]),
            ends=ends,
        )

    def _seconds(self, priced: list[BlockCost], kind: str) -> Seconds:
        ordered = priced if kind == "F" else priced[::-1]
        waits_s = waited_s([one.passes[kind][1] for one in ordered], self.on.software)
        own = [one.seconds[kind] for one in ordered]
        compute_s, rest_s = (sum(s.compute_s for s in own), sum(s.rest_s for s in own))
        return Seconds(compute_s + waits_s, rest_s)

    def _kinds(self) -> str:
        return "FBIW" if self.run.layout.schedule in SPLIT else "FB"

    def _both_s(self, block: Block) -> float:
        """Return the seconds of a block as layers are spread by them, nothing beside exchanges."""
        if id(block) not in self.alone:
            self.alone[id(block)] = self._alone_s(block)
        return self.alone[id(block)]

    def _alone_s(self, block: Block) -> float:
        if not beside_exchanges(self.run.job, self.on).shared:
            priced = [self._block(block)]
            return sum(self._seconds(priced, kind).on(1.0) for kind in "FB")
        again = self.run.job.recompute
        ahead, back = forward_pass([block], self.on), backward_pass([block], self.on, again)
        return ahead.seconds + back.seconds

    def _block(self, block: Block) -> BlockCost:
        if id(block) not in self.blocks:
            passes = {kind: self._priced(block, kind) for kind in self._kinds()}
            held = chunk_activations([block], self.run.job.recompute, 0)
            self.blocks[id(block)] = BlockCost(
                passes,
                {kind: _without_host(paced) for kind, paced in passes.items()},
                held.each,
                held.working,
            )
        return self.blocks[id(block)]

    def _priced(self, block: Block, kind: str) -> Paced:
        beside = beside_exchanges(self.run.job, self.on)
        if kind in "BI":
            weights = False if kind == "I" else None
            again = self.run.job.recompute
            return paced_backward(block, self.on, again, beside, weights=weights)
        key = (id(block), kind)
        if key not in self.alike:
            self.alike[key] = (
                paced_forward(block, self.on, beside)
                if kind == "F"
                else paced_backward(block, self.on, (), weights=True)
            )
        return self.alike[key]


def _without_host(paced: Paced) -> Seconds:
    parts = paced[0]
    compute_s = sum(part.seconds for part in parts if part.stream == "compute")
    return Seconds(compute_s, sum(part.seconds for part in parts) - compute_s)


def whole_blocks(run: Training) -> list[Block]:
    """Return the work of the whole network under even loads, whatever is recomputed."""
    return blocks(run.job, chunks(run.architecture, 1)[0][0], even_loads(run))
