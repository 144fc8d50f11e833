"""Seconds of a kernel on one device: the roofline with the software profile's efficiencies.

t = max(FLOP / (peak * e_kind), bytes / (memory bandwidth * e_memory)) + launch
"""

from moesim.cost.software import Software
from moesim.hardware.device import Device, peak
from moesim.model.operators import (
    AttentionCore,
    Compute,
    GroupedGemm,
    LinearAttentionCore,
    flop,
    read_bytes,
    written_bytes,
)


def roofline_s(operator: Compute, device: Device, software: Software) -> float:
    """Return the seconds that `operator` takes, all repetitions.

    Raises ProfileError where the device has no peak for the operator's dtype.
    """
    work = flop(operator)
    moved = read_bytes(operator) + written_bytes(operator)
    memory_s = moved / (device.memory_bandwidth_bytes_per_s * software.memory_fraction)
    launch_s = software.kernel_launch_s * operator.count
    if work == 0.0:
        return memory_s + launch_s if moved else 0.0
    rate = peak(device, operator.dtype) * _efficiency(operator, software)
    return max(work / rate, memory_s) + launch_s


def _efficiency(operator: Compute, software: Software) -> float:
    match operator:
        case GroupedGemm():
            return software.grouped_gemm_fraction
        case AttentionCore() | LinearAttentionCore():
            return software.attention_fraction
        case _:
            return software.gemm_fraction
