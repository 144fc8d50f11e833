"""What the experts of one rank take and keep, by the rows of each: where skew shows."""

from moesim.cost.pricing import Machine, price
from moesim.cost.recomputation import kept_bytes
from moesim.cost.work import Job
from moesim.model.architecture import MoeFfn
from moesim.model.ffn import ffn_operators
from moesim.model.operators import Operator
from moesim.model.shapes import Shape

_TIMED = ("expert_up", "expert_activation", "expert_down")


def experts_s(ffn: MoeFfn, shape: Shape, rows: tuple[int, ...], *, job: Job, on: Machine) -> float:
    """Return the forward seconds of both grouped products and the activation between them.

    `rows` are those of each expert of the rank; the seconds are those of a training step, by the
    same kernels.

    Raises ProfileError where the device has no peak for the precision.
    """
    if not sum(rows):
        return 0.0
    operators = _operators(ffn, shape, rows, job)
    return sum(price(one, on).seconds for one in operators if one.name in _TIMED)


def block_kept_bytes(ffn: MoeFfn, shape: Shape, rank_rows: int, *, job: Job) -> float:
    """Return the bytes that the MoE block of one rank keeps for the backward pass.

    The same operators as in the memory of a stage. Without recomputation, in bf16 and with gated
    experts 2 (T d + n (d + 3 f / etp)): input of the router; input of the experts, gate and up,
    and their product. Shared experts add to it.
    """
    return kept_bytes(_operators(ffn, shape, (rank_rows,), job), job.recompute)


def _operators(ffn: MoeFfn, shape: Shape, rows: tuple[int, ...], job: Job) -> list[Operator]:
    return ffn_operators(ffn, job.architecture.hidden, shape, job.shard, rows, None)
