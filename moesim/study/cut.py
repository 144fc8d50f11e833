"""One cut of a model: the layers of one rank, priced once for all pipelines made of them."""

from dataclasses import dataclass, field

from moesim.cost.exchange_overlap import beside_each_other, interference, one_after_the_other
from moesim.cost.memory import block_kept_bytes, working_set_bytes
from moesim.cost.parameters import StageParams, add, end_params
from moesim.cost.pipeline import Chunk, balanced, chunks, equal_sizes
from moesim.cost.pricing import Machine
from moesim.cost.stage import Beside, backward_pass, forward_pass
from moesim.cost.times import PassCost, pass_cost
from moesim.cost.work import Block, blocks
from moesim.study.resolve import Training
from moesim.study.split import even_loads

SPLIT = {"zb_h1", "dualpipe", "dualpipe_v"}
"""Schedules that run weight gradients apart."""


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """What one rank does for a chunk of layers and holds of it."""

    seconds: dict[str, float]
    """Of passes by kind: F, B, and where a schedule splits the backward pass I and W."""
    found: tuple[Block, ...]
    layers: int
    kept_bytes: float
    """Of one micro-batch."""
    working_bytes: float
    params: StageParams
    ends: tuple[bool, bool]
    """Whether the first and the last of the network lie in it."""


@dataclass(frozen=True, slots=True)
class BlockCost:
    """What one rank does for a block and holds of it."""

    passes: dict[str, PassCost]
    kept_bytes: float
    working_bytes: float


@dataclass(slots=True)
class Cut:
    """A model cut by tp, cp, ep and etp, at one micro-batch and recomputation."""

    run: Training
    on: Machine
    found: list[Block]
    """Those of the whole network."""
    alike: dict[tuple[int, str], PassCost] = field(default_factory=dict)
    """Passes that recomputation does not change, shared by cuts that differ in nothing else."""
    before: int = 1
    """How many of them come before the first layer: the embedding."""
    chunks: dict[tuple[tuple[int, ...], bool, bool], ChunkCost] = field(default_factory=dict)
    blocks: dict[int, BlockCost] = field(default_factory=dict)
    sizes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    pairs: dict[tuple[int, int], float] = field(default_factory=dict)

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

    def pair_s(self, forward: ChunkCost, backward: ChunkCost) -> float:
        """Return the seconds of a forward and a backward pass as one."""
        key = (id(forward), id(backward))
        if key not in self.pairs:
            both = self._pass(forward, "F"), self._pass(backward, "B")
            if self.run.job.exchange_overlap == "batch":
                cost = interference(self.on.device, self.on.software)
                self.pairs[key] = beside_each_other(*both, cost).seconds
            else:
                self.pairs[key] = one_after_the_other(*both).seconds
        return self.pairs[key]

    def _pass(self, chunk: ChunkCost, kind: str) -> PassCost:
        ordered = chunk.found if kind == "F" else chunk.found[::-1]
        parts = [part for block in ordered for part in self._block(block).passes[kind].parts]
        return pass_cost(parts, chunk.layers)

    def _chunk(self, found: list[Block], ends: tuple[bool, bool]) -> ChunkCost:
        job, (first, last) = self.run.job, ends
        priced = [self._block(block) for block in found]
        mtp = job.architecture.mtp_layers if last else 0
        end = Chunk(layers=(), has_embedding=first, has_logits=last, mtp_layers=mtp)
        ends_held = end_params(job.architecture, end, job.shard)
        return ChunkCost(
            seconds={
                kind: sum(one.passes[kind].seconds for one in priced) for kind in self._kinds()
            },
            found=tuple(found),
            layers=sum(block.is_layer for block in found),
            kept_bytes=sum(one.kept_bytes for one in priced),
            working_bytes=max((one.working_bytes for one in priced), default=0.0),
            params=add([*(block.params for block in found), ends_held]),
            ends=ends,
        )

    def _kinds(self) -> str:
        return "FBIW" if self.run.layout.schedule in SPLIT else "FB"

    def _both_s(self, block: Block) -> float:
        known = self._block(block).passes
        return known["F"].seconds + known["B"].seconds

    def _block(self, block: Block) -> BlockCost:
        if id(block) not in self.blocks:
            again = self.run.job.recompute
            self.blocks[id(block)] = BlockCost(
                {kind: self._priced(block, kind) for kind in self._kinds()},
                block_kept_bytes(block, again),
                working_set_bytes(block, again),
            )
        return self.blocks[id(block)]

    def _priced(self, block: Block, kind: str) -> PassCost:
        job = self.run.job
        beside = Beside(shared=job.exchange_overlap == "shared_expert")
        if kind in "BI":
            weights = False if kind == "I" else None
            return backward_pass([block], self.on, job.recompute, beside, weights=weights)
        key = (id(block), kind)
        if key not in self.alike:
            self.alike[key] = (
                forward_pass([block], self.on, beside)
                if kind == "F"
                else backward_pass([block], self.on, (), weights=True)
            )
        return self.alike[key]


def whole_blocks(run: Training) -> list[Block]:
    """Return the work of the whole network under even loads, whatever is recomputed."""
    return blocks(run.job, chunks(run.architecture, 1)[0][0], even_loads(run))
