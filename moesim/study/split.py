"""How many layers each pipeline chunk gets: equal where they divide, else balanced by time."""

from dataclasses import replace

from moesim import rng
from moesim.cost.pipeline import Chunk, balanced, chunks, equal_sizes
from moesim.cost.pricing import Machine, machine
from moesim.cost.stage import backward_pass, forward_pass
from moesim.cost.work import Block, Loads, blocks
from moesim.moe.assignment import LayerLoad, Router, assign
from moesim.moe.loads import LoadLaw
from moesim.spec.schedule_names import FOLDED
from moesim.study.resolve import Training
from moesim.study.routing import moe_layers, router


def stage_chunks(run: Training) -> list[list[Chunk]]:
    """Return the model chunks of every stage of `run`.

    As the layout says; else equally, embedding and logits in the place of a layer where that makes
    it equal; else the split whose slowest chunk, forward and backward under even loads, is fastest:
    logits and MTP count with the last chunk. With dualpipe a stage holds that of the stage opposite
    too, with dualpipe_v and zb_v chunks s and 2 p - 1 - s.
    """
    layout, layers = run.layout, run.architecture.num_layers
    positions = layout.pp * layout.vpp
    sizes = layout.chunk_layers or equal_sizes(layers, positions)
    if sizes is None:
        sizes = tuple(balanced(*_seconds(run, layers), positions))
    stages = chunks(run.architecture, layout.pp, layout.vpp, sizes)
    if layout.schedule == "dualpipe":
        return [[own, other] for (own,), (other,) in zip(stages, reversed(stages), strict=True)]
    if layout.schedule in FOLDED:
        flat = [stage[chunk] for chunk in range(2) for stage in stages]
        return [[flat[s], flat[-1 - s]] for s in range(layout.pp)]
    return stages


def _seconds(run: Training, layers: int) -> tuple[list[float], float]:
    """Return the seconds of each layer for one micro-batch, and of what follows the last."""
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    whole = chunks(run.architecture, 1)[0][0]
    found = blocks(run.job, whole, even_loads(run))
    ahead = 2 if run.architecture.encoder else 1  # the embeddings
    known: dict[int, float] = {}
    for block in found:
        if id(block) not in known:
            known[id(block)] = _block_s(block, on, run.job.recompute)
    times = [known[id(block)] for block in found[ahead:]]
    return times[:layers], sum(times[layers:])


def _block_s(block: Block, on: Machine, recompute: tuple[str, ...]) -> float:
    return forward_pass([block], on).seconds + backward_pass([block], on, recompute).seconds


def even_loads(run: Training) -> Loads:
    """Return the loads of all layers with experts where every expert has equally many rows."""
    unused = rng.stream(0, "even loads draw nothing")
    known: dict[Router, LayerLoad] = {}
    loads = {}
    for layer in moe_layers(run):
        routed = replace(router(layer, run), law=LoadLaw())
        if routed not in known:
            known[routed] = assign(routed, unused)
        loads[layer.number] = known[routed]
    return loads
