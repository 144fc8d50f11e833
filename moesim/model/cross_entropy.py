"""The loss over a rank's share of the vocabulary: one pass, or several kernels in fp32.

Three small all-reduces over the tensor-parallel ranks give every token its maximum, its target's
logit and its sum of exponentials, 4 bytes each; the backward pass needs none.
Source: Megatron-LM core/tensor_parallel/cross_entropy.py (`_VocabParallelCrossEntropy`), and
core/fusions/fused_cross_entropy.py for the native fusion.
"""

from typing import Literal

from moesim.model.operators import Collective, Operator, Pointwise

CrossEntropy = Literal["fused", "native", "unfused", "torch"]

_Kernel = tuple[str, float, float, tuple[float, float]]

_UNFUSED: tuple[_Kernel, ...] = (
    ("cast", 0.5, 1.0, (1.0, 0.5)),
    ("max", 1.0, 0.0, (0.0, 0.0)),
    ("subtract", 1.0, 1.0, (0.0, 0.0)),
    ("exp", 1.0, 1.0, (0.0, 0.0)),
    ("sum", 1.0, 0.0, (0.0, 0.0)),
    ("divide", 1.0, 1.0, (1.0, 1.0)),
)
"""Kernels on fp32 logits: read and written per logit forward, and in the backward pass, in units of
4 bytes; 16-bit logits are half a unit.

Forward 6 + 4 + 8 + 8 + 4 + 8 = 38 bytes. Backward the softmax is scaled by the incoming gradient
in place and cast back, 8 + 6 = 14 bytes; subtracting 1 at the target touches one logit per token.
"""


_NATIVE: tuple[_Kernel, ...] = (
    ("max", 0.5, 1.0, (0.0, 0.0)),
    ("sum", 1.0, 1.0, (0.0, 0.0)),
    ("divide", 1.0, 1.0, (1.0, 0.5)),
)
"""The same functions compiled (`jit_fuser`), one kernel each: cast and maximum; subtraction,
exponential and sum; division; scaling and cast of the gradient. 6 + 8 + 8 = 22 bytes per logit
forward, 6 backward."""


_TORCH: tuple[_Kernel, ...] = (
    ("shift", 0.5, 0.5, (0.5, 1.0)),
    ("cast", 0.5, 1.0, (1.0, 0.5)),
    ("log_softmax", 1.0, 1.0, (2.0, 1.0)),
    ("nll", 0.0, 0.0, (0.0, 1.0)),
)
"""torch.nn.functional.cross_entropy in fp32 on logits without the last position, made contiguous:
4 + 6 + 8 = 18 bytes forward. Backward zeros are filled, 4, the softmax goes through 12 and the cast
through 6, and the shift fills zeros and copies, 6: 28. Source: PyTorch tools/autograd/
derivatives.yaml and allenai/OLMo olmo/train.py, from memory, unchecked."""

_KERNELS = {"native": _NATIVE, "unfused": _UNFUSED, "torch": _TORCH}
_KEPT = ("divide", "log_softmax")
"""Kernels whose fp32 output stays for the backward pass."""


def loss_operators(
    kind: CrossEntropy, rows: int, vocab: int, *, dtype: str, tp: int
) -> list[Operator]:
    """Return the cross-entropy of `rows` tokens over `vocab` logits of type `dtype`.

    fused: forward reads the logits, backward reads them again and writes the gradients in their
    place and type; the logits are what is kept. unfused: six kernels forward and two backward,
    each reading its inputs and writing its outputs; the fp32 softmax is kept. native: these
    compiled to three kernels and one. torch: PyTorch's own, which keeps fp32 values too.
    """
    logits = float(rows * vocab)
    if kind == "fused":
        return [*_vocabulary_wide(rows, tp), _fused(rows, logits, dtype)]
    return [*_vocabulary_wide(rows, tp), *_in_fp32(_KERNELS[kind], rows, logits, dtype)]


def _fused(rows: int, logits: float, dtype: str) -> Pointwise:
    return Pointwise(
        name="cross_entropy", module="logits", input_from="logits", rows=float(rows),
        elements_read=logits, elements_written=0.0, elements_saved=logits, dtype=dtype,
    )  # fmt: skip


def _in_fp32(kernels: tuple[_Kernel, ...], rows: int, logits: float, dtype: str) -> list[Pointwise]:
    wide = dtype in ("fp32", "tf32")
    return [
        Pointwise(
            name=f"cross_entropy_{name}", module="logits", input_from="logits", rows=float(rows),
            elements_read=read * logits, elements_written=written * logits,
            elements_saved=logits if name in _KEPT else 0.0, dtype="fp32",
            gradient=(back[0] * logits, back[1] * logits),
        )
        for name, read, written, back in kernels
        if not (wide and name == "cast")
    ]  # fmt: skip


def _vocabulary_wide(rows: int, tp: int) -> list[Collective]:
    if tp == 1:
        return []
    return [
        Collective(
            name=f"cross_entropy_{name}", module="tp", kind="all_reduce", group="tp",
            payload_bytes=4.0 * rows, forward_only=True,
        )
        for name in ("maxima", "targets", "sums")
    ]  # fmt: skip
