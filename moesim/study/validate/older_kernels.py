"""Kernels of an older generation on a newer device: what they make of it.

The library grouped_gemm (tgale96 and fanshiqing, 1.x) compiles CUTLASS's grouped product for
compute capability 8.0, whatever the device (csrc/grouped_gemm.cu: from memory, unchecked). Such
kernels keep to Ampere's matrix instructions, which do per unit and clock what they do on an A100.
A Hopper unit does twice as much per clock with its own (NVIDIA H100 whitepaper, fourth-generation
tensor cores: from memory, unchecked), so

    t = t(A100) / (peak / (2 peak(A100)))

1.59 on an H100 SXM: 132 / 108 units at 1.3 times the clock; its memory is 1.64 times as fast.
"""

from dataclasses import replace

from moesim.cost.pricing import Machine
from moesim.cost.software import on_device
from moesim.hardware.device import device, peak
from moesim.hardware.profiles import load_accelerator

_AMPERE = "a100-sxm-80gb"
_HOPPER = ("h100", "h200", "h800", "gh200")
_FASTER_PER_CLOCK = 2.0
"""Matrix FLOP per unit and clock of a Hopper device over those of an A100, in 16-bit types."""
NOTE = "kernels for compute capability 8.0: as fast per unit and clock as on an A100"


def older_kernels(library: str, on: Machine, dtype: str) -> tuple[Machine, float] | None:
    """Return where kernels of `library` are priced and how many times as fast `on` runs them.

    None where they are not older than the device, or nothing is known of them.
    """
    words = library.casefold()
    if "grouped_gemm" not in words or "cutlass" not in words or dtype not in ("bf16", "fp16"):
        return None
    if not on.device.name.startswith(_HOPPER) or on.software.kernels is None:
        return None
    older = device(load_accelerator(_AMPERE))
    faster = peak(on.device, dtype) / (_FASTER_PER_CLOCK * peak(older, dtype))
    link_bytes_per_s = on.software.kernels.chip.link_bytes_per_s
    software = on_device(on.software, older, link_bytes_per_s)
    return replace(on, device=older, software=software), faster
