"""How much longer older FlashAttention takes than the attention kernels that were measured.

Those are the newest of each device: on Hopper FlashAttention-3, elsewhere FlashAttention-2.

- flash_1: 2 times FlashAttention-2, "around 2x speedup" (arXiv 2307.08691, abstract)
- flash_2: on Hopper 1.75 times FlashAttention-3, the middle of "1.5-2.0x" (arXiv 2407.08608,
  abstract); elsewhere itself

Both abstracts from memory, unchecked. Forward and backward are taken alike: assumed.
"""

from typing import Literal

from moesim.hardware.device import Device

AttentionKernel = Literal["fused", "flash_2", "flash_1", "unfused", "unfused_fp32"]

_HOPPER = ("h100", "h200", "h800", "h20", "gh200")
_SECOND_OVER_THIRD = 1.75
_FIRST_OVER_SECOND = 2.0


def slowdown(kernel: AttentionKernel, device: Device) -> float:
    """Return the time of `kernel` over that of the fused kernels measured on such a device."""
    if kernel not in ("flash_1", "flash_2"):
        return 1.0
    newest = device.name.casefold().startswith(_HOPPER)
    second = _SECOND_OVER_THIRD if newest else 1.0
    return second * (_FIRST_OVER_SECOND if kernel == "flash_1" else 1.0)
