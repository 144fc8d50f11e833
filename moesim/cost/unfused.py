"""Seconds of attention whose scores go through memory: product, softmax, dropout, product.

What is read and written follows from the arrays that Korthikanti et al. list (arXiv 2205.05198,
section 4.1: scores, softmax's output, the dropout's mask of one byte, its output), each kernel
reading its inputs and writing its outputs once. The products compute masked pairs too.
"""

from dataclasses import dataclass

from moesim.cost.software import Software
from moesim.hardware.device import Device, peak
from moesim.model.operators import AttentionCore, all_pairs

_MASK = 1.0
"""Bytes of a pair in the mask of the dropout."""


@dataclass(frozen=True, slots=True)
class _Kernel:
    """One kernel: multiply-adds per pair and arrays of one value per pair, read or written."""

    width: int = 0
    arrays: float = 0.0
    masks: float = 0.0


def _forward(core: AttentionCore) -> tuple[_Kernel, ...]:
    return (
        _Kernel(width=core.qk_dim, arrays=1),  # scores
        _Kernel(arrays=2),  # scale, mask, softmax
        _Kernel(arrays=2, masks=1),  # dropout
        _Kernel(width=core.v_dim, arrays=1),  # weighted sum
    )


def _backward(core: AttentionCore) -> tuple[_Kernel, ...]:
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
    plain products and of memory, plus a launch.
    """
    pairs, size = all_pairs(core), 2.0 if core.dtype != "fp32" else 4.0
    rate = peak(device, core.dtype) * software.gemm_fraction
    bandwidth = device.memory_bandwidth_bytes_per_s * software.memory_fraction
    kernels = _forward(core) if core.qk_products == 1 else _backward(core)
    return sum(
        max(
            2.0 * kernel.width * pairs / rate,
            (kernel.arrays * size + kernel.masks * _MASK) * pairs / bandwidth,
        )
        + software.kernel_launch_s
        for kernel in kernels
    )
