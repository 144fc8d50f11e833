"""The forward pass of one chunk beside the backward pass of another, on the streams of a device.

Kernels of exchanges take units from compute meanwhile: c' = c + min(c / (1 - taken), x) taken,
with c the seconds of compute, x those of exchanges, taken the share of units that these occupy.
Exchanges are compared at the speed that they have alone: what they lose beside compute is known of
DeepSeek's trace only (deepseek-ai/profile-data), the one that is compared here.

What the figures of that trace count follows from its launches. Four layers of DeepSeek-V3, with 4
experts on each of 64 ranks, run 60 kernels gemm_fp8_wgrad_accumulate, 15 a layer: 2 for each expert
and 7 for the dense products (5 of attention, 2 of the shared expert). So one kernel makes all
weight gradients, and the 64 of gemm_fp8, 16 a layer, are 7 products forward, 7 for gradients of
inputs and 2 up-projections of attention computed again.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from moesim.cost.exchange_overlap import beside_each_other
from moesim.cost.pricing import price
from moesim.cost.recomputation import again
from moesim.cost.stage import Beside, backward_pass, cost_beside, forward_pass
from moesim.cost.times import PassCost
from moesim.model.backward import backward
from moesim.model.operators import AttentionCore, Collective, Exchange, Gemm, GroupedGemm, Operator
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
    cost = cost_beside(piece.on)
    slower = _slower(passes, cost.taken)
    seconds = {
        "gpu_span_ms": beside_each_other(passes[0], passes[1], cost).seconds,
        "compute_stream_busy_ms": slower * _busy_s(passes, compute=True),
        "comm_stream_busy_ms": _busy_s(passes, compute=False),
        **_totals(_beside(_forward(piece), slower), _beside(_backward(piece), slower)),
    }
    predicted = {name: 1e3 * value for name, value in seconds.items()}
    assumed = tuple(one for one in mapped.assumed if not one.startswith("overlap of the expert"))
    return compared_figures(case, predicted, replace(record, assumed=assumed))


def _slower(passes: list[PassCost], taken: float) -> float:
    """Return how many times as long compute takes beside the exchanges of both passes."""
    compute_s, exchange_s = (_busy_s(passes, compute=one) for one in (True, False))
    if not compute_s:
        return 1.0
    return 1.0 + min(compute_s / (1 - taken), exchange_s) * taken / compute_s


def _beside(timed: list[Timed], slower: float) -> list[Timed]:
    """Return kernels as a trace has them: those of compute with fewer units."""
    moved = Collective | Exchange
    return [(one, s if isinstance(one, moved) else s * slower) for one, s in timed]


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
        "fp8_wgrad_grouped_gemm_ms_total": _sum(back, _weights_fp8),
        "fp8_m_grouped_gemm_ms_total": _sum(both, _grouped_fp8),
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


def _weights_fp8(one: Operator) -> bool:
    return isinstance(one, Gemm | GroupedGemm) and one.dtype == "fp8" and one.accumulates


def _grouped_fp8(one: Operator) -> bool:
    return isinstance(one, GroupedGemm) and one.dtype == "fp8" and not one.accumulates


def _dense_fp8(one: Operator) -> bool:
    return isinstance(one, Gemm) and one.dtype == "fp8" and not one.accumulates
