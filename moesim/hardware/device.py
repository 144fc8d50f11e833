"""One accelerator as numbers in base units, and what to do where a profile lacks one."""

from dataclasses import dataclass
from typing import TypeVar

from moesim.errors import ProfileError, nearest
from moesim.hardware.figures import SourcedFigure, sourced
from moesim.spec.hardware import AcceleratorSpec, PeakSpec

_N = TypeVar("_N", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What one accelerator offers; None where its profile says nothing."""

    name: str
    vendor: str
    description: str
    peak_flop_per_s: tuple[tuple[str, float], ...]
    """Pairs of number format and dense rate."""
    memory_capacity_bytes: float
    memory_bandwidth_bytes_per_s: float
    compute_units: int | None = None
    matrix_unit: int | None = None
    l2_bytes: float | None = None
    tdp_w: float | None = None
    price_usd_per_device_hour: float | None = None
    host_link_bytes_per_s: float | None = None
    figures: tuple[SourcedFigure, ...] = ()


def device(spec: AcceleratorSpec) -> Device:
    """Return the accelerator of a profile as a record."""
    return Device(
        name=spec.name,
        vendor=spec.vendor,
        description=spec.description,
        peak_flop_per_s=_peaks(spec.peak),
        memory_capacity_bytes=spec.memory.capacity.value,
        memory_bandwidth_bytes_per_s=spec.memory.bandwidth.value,
        compute_units=spec.compute_units.value if spec.compute_units else None,
        matrix_unit=spec.matrix_unit.value if spec.matrix_unit else None,
        l2_bytes=spec.l2.value if spec.l2 else None,
        tdp_w=spec.tdp.value if spec.tdp else None,
        price_usd_per_device_hour=spec.price.value if spec.price else None,
        host_link_bytes_per_s=spec.host_link.value if spec.host_link else None,
        figures=_figures(spec),
    )


def _peaks(spec: PeakSpec) -> tuple[tuple[str, float], ...]:
    figures = ((dtype, getattr(spec, dtype)) for dtype in PeakSpec.model_fields)
    return tuple((dtype, figure.value) for dtype, figure in figures if figure is not None)


def _figures(spec: AcceleratorSpec) -> tuple[SourcedFigure, ...]:
    subject = f"accelerator {spec.name}"
    found: list[SourcedFigure] = []
    for dtype in PeakSpec.model_fields:
        found += sourced(subject, f"peak.{dtype}", getattr(spec.peak, dtype), "flop_per_s")
    found += sourced(subject, "memory.capacity", spec.memory.capacity, "bytes")
    found += sourced(subject, "memory.bandwidth", spec.memory.bandwidth, "bytes_per_s")
    found += sourced(subject, "compute_units", spec.compute_units)
    found += sourced(subject, "matrix_unit", spec.matrix_unit)
    found += sourced(subject, "l2", spec.l2, "bytes")
    found += sourced(subject, "tdp", spec.tdp, "w")
    found += sourced(subject, "price", spec.price, "usd_per_h")
    found += sourced(subject, "host_link", spec.host_link, "bytes_per_s")
    return tuple(found)


def peak(device: Device, dtype: str) -> float:
    """Return the dense peak rate in FLOP/s for `dtype`.

    Raises ProfileError where the profile has none.
    """
    known = dict(device.peak_flop_per_s)
    if dtype in known:
        return known[dtype]
    raise ProfileError(
        f"accelerator profile '{device.name}' has no peak for {dtype}; it has "
        f"{', '.join(known)}.{nearest(dtype, known)} Compute in one of these, or "
        f"{_how_to_add(f'peak.{dtype}', '<number> TFLOP/s')}"
    )


def compute_units(device: Device) -> int:
    """Return the number of SMs, CUs or matrix units; ProfileError where it is unknown."""
    return _needed(device, device.compute_units, "compute_units", "132")


def tdp_w(device: Device) -> float:
    """Return the power limit in watts; ProfileError where it is unknown."""
    return _needed(device, device.tdp_w, "tdp", "700 W")


def price_usd_per_device_hour(device: Device) -> float:
    """Return the price of one device for an hour; ProfileError where it is unknown."""
    return _needed(device, device.price_usd_per_device_hour, "price", "2.95 USD/h")


def host_link_bytes_per_s(device: Device) -> float:
    """Return the rate between host and device, one direction; ProfileError where unknown."""
    return _needed(device, device.host_link_bytes_per_s, "host_link", "63 GB/s")


def _needed(device: Device, value: _N | None, key: str, example: str) -> _N:
    if value is not None:
        return value
    raise ProfileError(
        f"accelerator profile '{device.name}' lacks {key}, which this run needs; "
        f"{_how_to_add(key, example)}"
    )


def _how_to_add(key: str, example: str) -> str:
    *outer, last = key.split(".")
    where = f" below {'.'.join(outer)}" if outer else ""
    return (
        f"write it in a copy of the profile{where}: "
        f"'{last}: {{value: {example}, source: <where you read it>, kind: datasheet}}', "
        "and give the path of the copy as accelerator."
    )
