"""A device's datasheet figures in the form that the physics of kernels works with."""

from moesim.cost.curves import Chip
from moesim.hardware.device import Device

_TYPICAL_UNITS = 128
"""Compute units of a device whose profile names none: nearly all have 64 to 304."""
_TYPICAL_L2_BYTES = 32e6


def chip(device: Device, link_bytes_per_s: float = 0.0) -> Chip:
    """Return the figures of `device`; `link_bytes_per_s` is its scale-up rate.

    Of bf16 and fp16 one stands for the other where the datasheet has a peak for only one of them:
    kernels of either kind were measured.
    """
    peaks = dict(device.peak_flop_per_s)
    for name, other in (("bf16", "fp16"), ("fp16", "bf16")):
        if name not in peaks and other in peaks:
            peaks[name] = peaks[other]
    return Chip(
        name=device.name,
        vendor=device.vendor,
        peak_flop_per_s=peaks,
        memory_bandwidth_bytes_per_s=device.memory_bandwidth_bytes_per_s,
        compute_units=device.compute_units or _TYPICAL_UNITS,
        l2_bytes=device.l2_bytes or _TYPICAL_L2_BYTES,
        link_bytes_per_s=link_bytes_per_s,
    )
