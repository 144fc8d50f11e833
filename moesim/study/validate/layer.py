"""One MoE layer alone, forward and backward: router, dispatch, experts, combine, shared expert."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from moesim.cost.parameters import stage_params
from moesim.cost.pipeline import chunks
from moesim.cost.pricing import Machine, machine
from moesim.cost.recomputation import kept_bytes
from moesim.cost.stage import backward_pass, forward_pass
from moesim.cost.work import Block, blocks
from moesim.model.architecture import MoeFfn
from moesim.model.operators import DTYPE_BYTES, GroupedGemm, Operator, Pointwise
from moesim.model.parameters import router_params
from moesim.spec.cases import Case, CaseFile
from moesim.study.resolve import Training
from moesim.study.routing import draw
from moesim.study.validate.figures import compared_figures, number
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


def moe_layer(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of one MoE layer: its passes, and the memory that it takes."""
    mapped = map_training(case, file)
    piece = layers_of_run(mapped.run)
    block = next((ffn_block(one) for one in piece.blocks if one.rank_rows), None)
    if block is None:
        raise SkippedError("the model has no layer with experts")
    recompute = mapped.run.job.recompute
    predicted = {
        "forward_ms": 1e3 * forward_pass([block], piece.on).seconds,
        "backward_ms": 1e3 * backward_pass([block], piece.on, recompute).seconds,
    }
    assumed = mapped.assumed
    if number(case.part("measured").get("peak_mem_allocated_gb")) is not None:
        predicted["peak_mem_allocated_gb"] = _held_bytes(mapped.run, block) / 1e9
        assumed = (*assumed, _MEMORY)
    return compared_figures(case, predicted, replace(record, assumed=assumed))


def _held_bytes(run: Training, block: Block) -> float:
    """Return weights, their gradients, kept activations, and the widest gradients beside them."""
    placed = chunks(run.architecture, 1)[0][0]
    first = next(one for one in placed.layers if isinstance(one.layer.ffn, MoeFfn))
    assert isinstance(first.layer.ffn, MoeFfn)
    alone = replace(placed, layers=(first,), has_embedding=False, has_logits=False, mtp_layers=0)
    params = stage_params(run.architecture, [alone], run.job.shard)
    router = router_params(first.layer.ffn, run.architecture.hidden)
    weights = params.routed_experts + params.shared_experts + router
    each = 2 * DTYPE_BYTES[run.job.shard.wide]
    kept = kept_bytes(block.operators, run.job.recompute)
    return each * weights + kept + widest_gradients_bytes(block.operators)


def widest_gradients_bytes(operators: Iterable[Operator]) -> float:
    """Return the bytes of the gradients that the widest step of the backward pass has at hand.

    That of its output, which it reads, and that of its input, which it writes: where experts are
    gated 2 n (2 f + f) in bf16, those of the activation between the two grouped products.
    """
    widest = 0.0
    for one in operators:
        if isinstance(one, Pointwise):
            at_hand = one.elements_read + one.elements_written
        elif isinstance(one, GroupedGemm):
            at_hand = float(sum(one.rows) * (one.n + one.k))
        else:
            continue
        widest = max(widest, at_hand * max(DTYPE_BYTES[one.dtype], 2.0))
    return widest
