"""Seconds of a kernel on one device: a roofline over whole tiles, with assumed efficiencies.

t = max(FLOP / (peak * e_kind) * padding, bytes / (memory bandwidth * e_memory)) + launch

Linear attention and sampling are several kernels; each has its own such time, and they add up.
padding is what whole waves of tiles cost over the exact product: tiles are [tm, tn] with tm and tn
out of 64, 128 and 256, one tile per compute unit at a time, and the best of the nine is taken. On
systolic matrix units products fill whole ones instead: see matrix_unit.
"""

import math
from dataclasses import replace
from functools import lru_cache

from moesim.cost.fitted_kernels import accumulation_s, kernel_s
from moesim.cost.masked import laid_out
from moesim.cost.matrix_unit import products_padding, unit_padding
from moesim.cost.software import Software
from moesim.cost.stated import attention_fraction, memory_fraction
from moesim.cost.times import ASSUMED_UNCERTAINTY, Known
from moesim.cost.unfused import unfused_s
from moesim.hardware.device import Device, peak
from moesim.model.linear_scan import scan_phases
from moesim.model.operators import (
    DTYPE_BYTES,
    AttentionCore,
    Compute,
    Gemm,
    GroupedGemm,
    LinearAttentionCore,
    Pointwise,
    flop,
    read_bytes,
    written_bytes,
)
from moesim.model.phases import Phase
from moesim.model.sampling import Sampling, sampling_phases

TILES = (64, 128, 256)
"""Tile edges that explain measured products on NVIDIA devices: 64x64 to 256x256."""


def kernel_time(operator: Compute, device: Device, software: Software) -> Known:
    """Return the seconds of `operator`, all repetitions, and how well they are known.

    A fitted curve comes first; where there is none the roofline with assumed efficiencies stands.
    """
    if isinstance(operator, AttentionCore) and not operator.fused:
        seconds = unfused_s(operator, device, software) * operator.count
        return Known(seconds, "assumed", ASSUMED_UNCERTAINTY)
    if isinstance(operator, AttentionCore) and software.attention_slowdown != 1.0:
        known = kernel_time(operator, device, replace(software, attention_slowdown=1.0))
        slower = known.seconds * software.attention_slowdown
        return Known(slower, "assumed", ASSUMED_UNCERTAINTY)
    if software.kernels is not None:
        found = kernel_s(operator, software.kernels)
        if found is not None:
            return replace(found, seconds=found.seconds * operator.count)
    return Known(roofline_s(operator, device, software), "assumed", ASSUMED_UNCERTAINTY)


def roofline_s(operator: Compute, device: Device, software: Software) -> float:
    """Return the seconds that `operator` takes, all repetitions.

    Raises ProfileError where the device has no peak for the operator's dtype.
    """
    operator = laid_out(operator, device)
    phases = _phases(operator)
    if phases:
        once = sum(_phase_s(phase, operator, device, software) for phase in phases)
        return once * operator.count
    work = flop(operator)
    moved = read_bytes(operator) + written_bytes(operator)
    memory_share = memory_fraction(operator.name, software.memory_fraction, software.stated)
    memory_s = moved / (device.memory_bandwidth_bytes_per_s * memory_share)
    launch_s = software.kernel_launch_s * operator.count * _launches(operator)
    if work == 0.0:
        return memory_s + launch_s if moved else 0.0
    share, padding = _efficiency(operator, software), _padding(operator, device)
    if isinstance(operator, AttentionCore):
        padding = products_padding(padding, share, software.gemm_fraction)
    rate = peak(device, operator.dtype) * share
    launch_s += _accumulation_s(operator, device, software)
    return max(work / rate * padding, memory_s) + launch_s


def _launches(operator: Compute) -> int:
    return operator.launches[0] if isinstance(operator, Pointwise) else 1


def _accumulation_s(operator: Compute, device: Device, software: Software) -> float:
    """Return what adding a weight gradient in fp32 takes beside a source's plain product.

    It comes on top of the product, as it does beside fitted curves, at the source's memory rate.
    """
    if software.stated is None:
        return 0.0
    rate = device.memory_bandwidth_bytes_per_s * software.memory_fraction
    return operator.count * accumulation_s(_accumulated(operator), rate)


def _accumulated(operator: Compute) -> float:
    """Return the weights whose gradient one execution of `operator` adds to a buffer."""
    match operator:
        case Gemm(accumulates=True):
            return float(operator.m * operator.n)
        case GroupedGemm(accumulates=True):
            return float(sum(1 for rows in operator.rows if rows) * operator.k * operator.n)
        case _:
            return 0.0


def _phases(operator: Compute) -> tuple[Phase, ...]:
    """Return the kernels of an operator that is several, else nothing."""
    match operator:
        case LinearAttentionCore():
            return scan_phases(operator)
        case Sampling():
            return sampling_phases(operator, DTYPE_BYTES[operator.dtype])
        case _:
            return ()


def _phase_s(phase: Phase, operator: Compute, device: Device, software: Software) -> float:
    moved_s = phase.moved_bytes / (device.memory_bandwidth_bytes_per_s * software.memory_fraction)
    work_s = 0.0
    if phase.flop:
        work_s = phase.flop / (peak(device, operator.dtype) * _efficiency(operator, software))
    return max(work_s, moved_s) + software.kernel_launch_s


def _efficiency(operator: Compute, software: Software) -> float:
    match operator:
        case GroupedGemm() if len(operator.rows) > 1:  # a single expert is a plain product
            return software.grouped_gemm_fraction
        case AttentionCore():
            return attention_fraction(operator, software.attention_fraction, software.stated)
        case LinearAttentionCore():
            return software.attention_fraction
        case _:
            return software.gemm_fraction


def _padding(operator: Compute, device: Device) -> float:
    if device.matrix_unit is not None:
        return unit_padding(operator, device.matrix_unit)
    units = device.compute_units
    if units is None:
        return 1.0
    match operator:
        case Gemm():
            return wave_padding((operator.m,), operator.n, units)
        case GroupedGemm(accumulates=True):
            active = sum(1 for rows in operator.rows if rows)
            return wave_padding((operator.k,) * active, operator.n, units)
        case GroupedGemm():
            return wave_padding(tuple(sorted(operator.rows)), operator.n, units)
        case _:
            return 1.0


@lru_cache(maxsize=1024)
def wave_padding(rows: tuple[int, ...], n: int, units: int) -> float:
    """Return the time of whole waves of tiles over that of the exact products, at least 1.

    Each entry of `rows` is a product of its own with `n` columns; all share the waves. Where the
    tiles of a product are fewer than the units, the inner dimension is taken to be split over the
    idle ones, so only the padding of the tiles themselves remains.
    """
    exact = sum(rows) * n
    best = math.inf
    for tile_m in TILES:
        for tile_n in TILES:
            tiles = sum(math.ceil(m / tile_m) for m in rows) * math.ceil(n / tile_n)
            waves = tiles / units if tiles < units else math.ceil(tiles / units)
            best = min(best, waves * units * tile_m * tile_n)
    return max(1.0, best / exact)
