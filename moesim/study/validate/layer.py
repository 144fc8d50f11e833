"""One MoE layer alone, forward and backward: router, dispatch, experts, combine, shared expert."""

from dataclasses import dataclass, replace

from moesim.cost.pipeline import chunks
from moesim.cost.pricing import Machine, machine
from moesim.cost.stage import backward_pass, forward_pass
from moesim.cost.work import Block, blocks
from moesim.spec.cases import Case, CaseFile
from moesim.study.resolve import Training
from moesim.study.routing import draw
from moesim.study.validate.figures import compared_figures, number
from moesim.study.validate.layer_memory import layer_peak_bytes
from moesim.study.validate.record import Record
from moesim.study.validate.skipped import SkippedError
from moesim.study.validate.training_case import map_training

_MEMORY = "no optimizer: weights and their gradients in the type of the activations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Whole layers of a run as blocks, and what prices them."""

    run: Training
    blocks: list[Block]
    on: Machine


def layers_of_run(run: Training) -> Piece:
    """Return all layers of `run` under the loads of its first step."""
    whole = replace(chunks(run.architecture, 1)[0][0], mtp_layers=0)
    found = [one for one in blocks(run.job, whole, draw(run, 0)) if one.is_layer]
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    return Piece(run=run, blocks=found, on=on)


def ffn_block(block: Block) -> Block:
    """Return what of a layer comes after the norm before its feed-forward part."""
    names = [one.name for one in block.operators]
    return replace(block, operators=block.operators[names.index("ffn_norm") + 1 :])


def expert_block(piece: Piece) -> Block:
    """Return the feed-forward part of the first layer with experts."""
    block = next((ffn_block(one) for one in piece.blocks if one.rank_rows), None)
    if block is None:
        raise SkippedError("the model has no layer with experts")
    return block


def pass_times_ms(piece: Piece, block: Block) -> dict[str, float]:
    """Return what the passes of `block` take, by the names of the figures."""
    recompute = piece.run.job.recompute
    return {
        "forward_ms": 1e3 * forward_pass([block], piece.on).seconds,
        "backward_ms": 1e3 * backward_pass([block], piece.on, recompute).seconds,
    }


def moe_layer(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of one MoE layer: its passes, and the memory that it takes."""
    mapped = map_training(case, file)
    piece = layers_of_run(mapped.run)
    block = expert_block(piece)
    predicted = pass_times_ms(piece, block)
    assumed = mapped.assumed
    if number(case.part("measured").get("peak_mem_allocated_gb")) is not None:
        dispatcher = str(case.part("options").get("dispatcher", ""))
        peak = layer_peak_bytes(mapped.run, block, dispatcher)
        predicted["peak_mem_allocated_gb"] = peak / 1e9
        assumed = (*assumed, _MEMORY)
    return compared_figures(case, predicted, replace(record, assumed=assumed))
