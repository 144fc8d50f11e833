"""Seconds of attention whose scores go through memory: product, softmax, dropout, product.

What is read and written follows from the arrays that Korthikanti et al. list (arXiv 2205.05198,
section 4.1: scores, softmax's output, the dropout's mask of one byte, its output), each kernel
reading its inputs and writing its outputs once. With fp32 scores the graph is that of Mesh
TensorFlow (mesh_tensorflow 0.1.21, transformer/attention.py, attention with float32_logits, its
default; ops.py, log_softmax): logits, maximum, sum of exponentials and the weights in fp32, then a
cast and a dropout whose mask is shared by all queries; a reduction ends a kernel, all that goes
element by element hides in its neighbours (assumed of XLA). The products compute masked pairs too.
"""

from dataclasses import dataclass

from moesim.cost.matrix_unit import whole
from moesim.cost.software import Software
from moesim.hardware.device import Device, peak
from moesim.model.operators import AttentionCore, all_pairs

_MASK = 1.0
"""Bytes of a pair in the mask of the dropout."""
_WIDE = 4.0
"""Bytes of a pair in fp32."""


@dataclass(frozen=True, slots=True)
class _Kernel:
    """One kernel: multiply-adds per pair and arrays of one value per pair, read or written."""

    width: int = 0
    arrays: float = 0.0
    masks: float = 0.0
    wide: float = 0.0
    """Arrays in fp32, whatever the type of the others."""


def _forward(core: AttentionCore) -> tuple[_Kernel, ...]:
    if core.wide_scores:
        return (
            _Kernel(width=core.qk_dim, wide=1),  # scores, their bias added
            _Kernel(wide=1),  # maximum
            _Kernel(wide=1),  # sum of exponentials
            _Kernel(wide=2, arrays=1),  # weights, cast and dropped out
            _Kernel(width=core.v_dim, arrays=1),  # weighted sum
        )
    return (
        _Kernel(width=core.qk_dim, arrays=1),  # scores
        _Kernel(arrays=2),  # scale, mask, softmax
        _Kernel(arrays=2, masks=1),  # dropout
        _Kernel(width=core.v_dim, arrays=1),  # weighted sum
    )


def _backward(core: AttentionCore) -> tuple[_Kernel, ...]:
    if core.wide_scores:
        return (
            _Kernel(width=core.v_dim, arrays=1),  # gradient of the values
            _Kernel(width=core.v_dim, arrays=1),  # and of the weights
            _Kernel(arrays=1, wide=1),  # times the weights, summed over the keys
            _Kernel(arrays=1, wide=3),  # through both exponentials: weights, scores, result
            _Kernel(width=core.qk_dim, wide=1),  # of the queries
            _Kernel(width=core.qk_dim, wide=1),  # of the keys
        )
    return (
        _Kernel(width=core.v_dim, arrays=1),  # gradient of the values
        _Kernel(width=core.v_dim, arrays=1),  # and of the probabilities
        _Kernel(arrays=2, masks=1),  # through the dropout
        _Kernel(arrays=3),  # through the softmax
        _Kernel(width=core.qk_dim, arrays=1),  # of the queries
        _Kernel(width=core.qk_dim, arrays=1),  # of the keys
    )


def unfused_s(core: AttentionCore, device: Device, software: Software) -> float:
    """Return the seconds of one execution of `core`, forward or backward.

    A kernel takes the longer of its products and its bytes, at the software's efficiencies of
    plain products and of memory, plus a launch. Heads fill whole matrix units.
    """
    pairs, size = all_pairs(core), 2.0 if core.dtype != "fp32" else 4.0
    rate = peak(device, core.dtype) * software.gemm_fraction
    bandwidth = device.memory_bandwidth_bytes_per_s * software.memory_fraction
    kernels = _forward(core) if core.qk_products == 1 else _backward(core)
    return sum(
        max(
            2.0 * whole(kernel.width, device.matrix_unit or 1) * pairs / rate,
            (kernel.arrays * size + kernel.masks * _MASK + kernel.wide * _WIDE) * pairs / bandwidth,
        )
        + software.kernel_launch_s
        for kernel in kernels
    )
