"""The forward pass of one chunk beside the backward pass of another, on the streams of a device."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from moesim.cost.exchange_overlap import beside_each_other
from moesim.cost.pricing import price
from moesim.cost.recomputation import again
from moesim.cost.stage import Beside, backward_pass, cost_beside, forward_pass
from moesim.cost.times import PassCost
from moesim.model.backward import backward
from moesim.model.operators import AttentionCore, Exchange, Gemm, GroupedGemm, Operator
from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.figures import compared_figures
from moesim.study.validate.layer import Piece, layers_of_run
from moesim.study.validate.record import Record
from moesim.study.validate.training_case import map_training

Timed = tuple[Operator, float]
"""An operator of one pass, and its seconds."""
Test = Callable[[Operator], bool]


def chunk_pair(case: Case, file: CaseFile, record: Record) -> list[Record]:
    """Return the records of a chunk's forward pass beside another's backward pass.

    The span is that of both passes on one compute and one network stream, gradients of weights
    apart as in DualPipe (arXiv 2412.19437, section 3.2.1). Forward, tokens are
    dispatched and combined; backward, gradients of the combine are dispatched and those of the
    dispatch combined.
    """
    mapped = map_training(case, file)
    piece = layers_of_run(mapped.run)
    passes = [
        forward_pass(piece.blocks, piece.on),
        backward_pass(piece.blocks, piece.on, mapped.run.job.recompute, Beside(delayed=True)),
    ]
    seconds = {
        "gpu_span_ms": beside_each_other(passes[0], passes[1], cost_beside(piece.on)).seconds,
        "compute_stream_busy_ms": _busy_s(passes, compute=True),
        "comm_stream_busy_ms": _busy_s(passes, compute=False),
        **_totals(_forward(piece), _backward(piece)),
    }
    predicted = {name: 1e3 * value for name, value in seconds.items()}
    assumed = tuple(one for one in mapped.assumed if not one.startswith("overlap of the expert"))
    return compared_figures(case, predicted, replace(record, assumed=assumed))


def _busy_s(passes: Iterable[PassCost], *, compute: bool) -> float:
    return sum(
        part.seconds
        for one in passes
        for part in one.parts
        if (part.stream == "compute") is compute
    )


def _forward(piece: Piece) -> list[Timed]:
    return [
        (one, price(one, piece.on, block.skew).seconds)
        for block in piece.blocks
        for one in block.operators
    ]


def _backward(piece: Piece) -> list[Timed]:
    recompute, found = piece.run.job.recompute, []
    for block in piece.blocks:
        operators = [*again(block.operators, recompute)]
        operators += [grad for one in block.operators for grad in backward(one)]
        found += [(one, price(one, piece.on, block.skew).seconds) for one in operators]
    return found


def _totals(forward: list[Timed], back: list[Timed]) -> dict[str, float]:
    """Return the seconds of single kernels, by the name of the figure."""
    both = [*forward, *back]
    return {
        "dispatch_fwd_ms_total": _sum(forward, _exchange("dispatch")),
        "dispatch_bwd_ms_total": _sum(back, _exchange("dispatch", "combine_grad")),
        "combine_ms_total": _sum(both, _exchange("combine", "dispatch_grad")),
        "flash_attn_fwd_ms_each": _each(forward, _attention),
        "flash_attn_bwd_ms_each": _each(back, _attention_gradient),
        "fp8_wgrad_grouped_gemm_ms_total": _sum(back, _grouped_fp8(weights=True)),
        "fp8_m_grouped_gemm_ms_total": _sum(both, _grouped_fp8(weights=False)),
        "fp8_dense_gemm_ms_total": _sum(both, _dense_fp8),
    }


def _sum(timed: Iterable[Timed], test: Test) -> float:
    return sum(seconds for one, seconds in timed if test(one))


def _each(timed: Iterable[Timed], test: Test) -> float:
    found = [seconds for one, seconds in timed if test(one)]
    return sum(found) / len(found) if found else 0.0


def _exchange(*names: str) -> Test:
    return lambda one: isinstance(one, Exchange) and one.name in names


def _attention(one: Operator) -> bool:
    return isinstance(one, AttentionCore) and one.qk_products == 1


def _attention_gradient(one: Operator) -> bool:
    return isinstance(one, AttentionCore) and one.qk_products > 1


def _grouped_fp8(*, weights: bool) -> Test:
    return lambda one: (
        isinstance(one, GroupedGemm) and one.dtype == "fp8" and one.accumulates is weights
    )


def _dense_fp8(one: Operator) -> bool:
    return isinstance(one, Gemm) and one.dtype == "fp8"
