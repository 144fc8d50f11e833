"""What runs between the products of a layer, pass by pass, as named code bases have it.

A pass is one kernel; it reads its inputs and writes its outputs once. Bytes are per element of the
activations, of 16 bits each: 2 for those, 4 for fp32 copies, 1 for the mask of a dropout. Values
per row (means, sines) and per channel (weights) are left out, and so are the sums of the input
gradients of projections that a code base keeps apart (q, k, v; gate and up).

full            one kernel for residual and norm, one for rope, one for the activation, no dropout
megatron_2021   Megatron-LM 2021 to 2023, GPT: jit-fused bias-dropout-add and bias-GELU, fused
                LayerNorm, a pass for the bias of the qkv projection (its products add none), the
                context made contiguous, dropout on; positions are learned, so no rope
                (megatron/model/transformer.py, fused_bias_gelu.py; core/tensor_parallel/layers.py)
llm_foundry     MPT: torch's LayerNorm, residual additions by themselves, no bias, no dropout, ALiBi
                (llmfoundry/models/layers/blocks.py, norm.py)
transformers    Llama-like: RMSNorm in fp32 and rope in 16 bits, operator by operator
                (transformers/models/llama/modeling_llama.py)
olmo            RMSNorm and rope in fp32, operator by operator (allenai/OLMo olmo/model.py)

The passes of an operator's backward are those of PyTorch's tools/autograd/derivatives.yaml. The
code was read from memory, no copy of it was at hand: unchecked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from moesim.model.operators import DTYPE_BYTES, AttentionCore, Gemm, Operator, Pointwise

Fusions = Literal["full", "megatron_2021", "llm_foundry", "transformers", "olmo"]

_Pass = tuple[str, float, float]
"""What it does, and the bytes per element that it reads and writes."""


@dataclass(frozen=True, slots=True)
class _Passes:
    forward: tuple[_Pass, ...] = ()
    back: tuple[_Pass, ...] = ()
    left: float = 0.0
    """Bytes per element that stay for the backward pass, beside the input."""


_ADD: _Pass = ("sum", 4, 2)
_TURN = (("minus", 1, 1), ("join", 2, 2))

_LAYER_NORM_BACK: tuple[_Pass, ...] = (
    ("norm, input", 4, 2),
    ("norm, weights", 4, 0),
    ("sum with the residual's gradient", 4, 2),
)

_RMS_NORM = _Passes(
    (_ADD, ("cast", 2, 4), ("square", 4, 4), ("mean", 4, 0), ("divide", 4, 4), ("cast back", 4, 2),
     ("weight", 2, 2)),
    (("weight, input", 2, 2), ("weight, product", 4, 2), ("weight, sum", 2, 0),
     ("cast back", 2, 4), ("divide, input", 4, 4), ("divide, product", 8, 4),
     ("divide, sum", 4, 0), ("square, copy", 4, 4), ("square, twice", 4, 4),
     ("square, product", 4, 4), ("sum of both", 8, 4), ("cast", 4, 2), _ADD),
    left=4,
)  # fmt: skip
"""The fp32 copy and the 16-bit quotient stay, 6 bytes in the place of the input's 2."""

_SWIGLU = _Passes(
    (("silu", 2, 2), ("product", 4, 2)),
    (("product, gate", 4, 2), ("product, up", 4, 2), ("silu", 4, 2)),
    left=2,
)

_ROPE = _Passes(
    (("cosine", 2, 2), *_TURN, ("sine", 2, 2), _ADD),
    (("cosine", 2, 2), ("sine", 2, 2), ("minus", 1, 1), ("half of zeros", 0, 2), ("half", 1, 1),
     ("half of zeros", 0, 2), ("half", 1, 1), _ADD, _ADD),
)  # fmt: skip

_ROPE_FP32 = _Passes(
    (("cast", 2, 4), ("minus", 2, 2), ("join", 4, 4), ("sine", 4, 4), ("cosine", 4, 4),
     ("sum", 8, 4), ("cast back", 4, 2)),
    (("cast back", 2, 4), ("sine", 4, 4), ("cosine", 4, 4), ("minus", 2, 2), ("stack", 4, 4),
     ("sum", 8, 4), ("cast", 4, 2)),
)  # fmt: skip

_SETS: Mapping[Fusions, Mapping[str, _Passes]] = {
    "full": {},
    "megatron_2021": {
        "norm": _Passes(
            (("bias, dropout, residual", 4, 3), ("norm", 2, 2)),
            (*_LAYER_NORM_BACK, ("dropout", 3, 2), ("bias", 2, 0)),
            left=1,
        ),
        "qkv": _Passes((("bias", 2, 2),), (("bias", 2, 0),)),
        "context": _Passes((("copy", 2, 2),)),
        "plain": _Passes((("bias, gelu", 2, 2),), (("gelu", 4, 2), ("bias", 2, 0))),
        "embedding": _Passes(
            (("look-up", 2, 2), ("positions", 4, 2), ("dropout", 2, 3)),
            (("dropout", 3, 2), ("positions", 2, 2), ("look-up", 2, 2)),
            left=1,
        ),
    },
    "llm_foundry": {
        "norm": _Passes((_ADD, ("norm", 2, 2)), _LAYER_NORM_BACK),
        "rope": _Passes(),
    },
    "transformers": {"norm": _RMS_NORM, "rope": _ROPE, "gated": _SWIGLU},
    "olmo": {
        "norm": _RMS_NORM,
        "rope": _ROPE_FP32,
        "gated": _Passes(_SWIGLU.forward, (*_SWIGLU.back, ("join", 4, 4)), _SWIGLU.left),
    },
}


def with_passes(operators: list[Operator], fusions: Fusions) -> list[Operator]:
    """Return `operators` with the passes that code without full fusion makes between products.

    An operator that becomes several kernels stays one record: bytes and launches add up.
    """
    table = _SETS[fusions]
    if not table:
        return operators
    found: list[Operator] = []
    qkv = 0.0
    for operator in operators:
        if isinstance(operator, Gemm) and operator.name == "qkv_projection":
            qkv = float(operator.m * operator.n)
        found += _rewritten(operator, table, qkv)
    return found


def _rewritten(operator: Operator, table: Mapping[str, _Passes], qkv: float) -> list[Operator]:
    if isinstance(operator, AttentionCore):
        return [operator, *_context(operator, table)]
    if not isinstance(operator, Pointwise):
        return [operator]
    role, elements = _role(operator)
    if role == "rope" and "qkv" in table:
        role, elements = "qkv", qkv
    if role not in table:
        return [operator]
    return [_as_passes(operator, table[role], elements)] if table[role].forward else []


def _role(operator: Pointwise) -> tuple[str, float]:
    """Return what an operator is to the tables, and its elements."""
    name = operator.name
    if name.endswith("_norm"):
        return "norm", operator.elements_read / 2
    if name.endswith("_activation"):
        gated = operator.elements_read > operator.elements_written
        return ("gated" if gated else "plain"), operator.elements_written
    return name, operator.elements_read


def _context(core: AttentionCore, table: Mapping[str, _Passes]) -> list[Operator]:
    """Return the copy of the attention's output, where scores went through memory."""
    if core.fused or "context" not in table:
        return []
    elements = float(core.queries * core.heads * core.v_dim)
    copy = Pointwise(
        name="context", module=core.module, input_from=core.module, rows=float(core.queries),
        elements_read=elements, elements_written=elements, elements_saved=0.0, dtype=core.dtype,
    )  # fmt: skip
    return [_as_passes(copy, table["context"], elements)]


def _as_passes(operator: Pointwise, passes: _Passes, elements: float) -> Pointwise:
    units = elements / DTYPE_BYTES[operator.dtype]
    return replace(
        operator,
        elements_read=units * _read(passes.forward),
        elements_written=units * _written(passes.forward),
        elements_left=units * passes.left,
        gradient=(units * _read(passes.back), units * _written(passes.back)),
        launches=(len(passes.forward), len(passes.back)),
    )


def _read(passes: tuple[_Pass, ...]) -> float:
    return sum(read for _, read, _ in passes)


def _written(passes: tuple[_Pass, ...]) -> float:
    return sum(written for _, _, written in passes)
