"""Which fitted curves a device and a software profile have for each operator.

A curve measured on the device itself comes first, in the order of libraries that the software
profile prefers; else the nearest measured device of the same maker lends its parameters, and the
datasheet figures are swapped; else there is none and the roofline stands.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from moesim.cost.chips import chip
from moesim.cost.curves import Chip, Curve
from moesim.cost.kernel_profiles import (
    KernelProfile,
    curve_index,
    kernel_profile_names,
    load_kernels,
)
from moesim.cost.times import Tag
from moesim.hardware.device import Device, device
from moesim.hardware.profiles import load_accelerator

FAMILY_OF = {
    "gemm": ("gemm",),
    "grouped_gemm": ("moe", "grouped_gemm"),
    "attention": ("attention_prefill", "attention_decode"),
    "collectives": ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "send"),
}
"""The families behind each key of a software profile's `kernels`."""

DTYPES = {
    "bf16": ("bf16", "fp16"),
    "fp16": ("fp16", "bf16"),
    "fp8": ("fp8_tensor_static", "fp8_tensor", "fp8_block128"),
}
"""Dtypes of the measurement tables that stand for a compute type, the first that exists."""


@dataclass(frozen=True, slots=True)
class Found:
    """A curve, and whether it was fitted on this device or lent by another."""

    curve: Curve
    tag: Tag
    profile: str


@dataclass(frozen=True, slots=True)
class Kernels:
    """The curves of one device: by family, dtype and variant."""

    chip: Chip
    found: Mapping[tuple[str, str], Found]
    memo: dict[Any, tuple[float, Tag] | None] = field(default_factory=dict, compare=False)
    """What operators cost that were asked for before."""

    def curve(self, family: str, dtype: str) -> Found | None:
        """Return the curve for a compute type, or None."""
        for name in DTYPES.get(dtype, ()):
            if (family, name) in self.found:
                return self.found[family, name]
        return None


def kernels_for(
    on: Device, link_bytes_per_s: float, libraries: Mapping[str, tuple[str, ...]]
) -> Kernels:
    """Return the curves for `on`; `libraries` are those preferred for each key of FAMILY_OF."""
    names = kernel_profile_names()
    found: dict[tuple[str, str], Found] = {}
    for key, preferred in libraries.items():
        for library in preferred:
            name, tag = _profile_for(on, library, names)
            if name is None:
                continue
            profile = _shipped(name)
            for (family, dtype, variant), curve in curve_index(profile).items():
                if family in FAMILY_OF[key] and _is_main(variant):
                    lent = curve if tag == "fitted" else replace(curve, surface=None)
                    _keep(found, (family, dtype), Found(lent, tag, name))
    return Kernels(chip(on, link_bytes_per_s), found)


@lru_cache(maxsize=16)
def _shipped(name: str) -> KernelProfile:
    """Return a shipped kernel profile; each is read once, it does not change under way."""
    return load_kernels(name)


@lru_cache(maxsize=64)
def _shipped_device(name: str) -> Device:
    return device(load_accelerator(name))


def _is_main(variant: str) -> bool:
    """Leave out curves of special cases: narrow caches, random loads of a busiest rank."""
    return not variant.endswith(("fp8 cache", "skewed"))


def _keep(found: dict[tuple[str, str], Found], key: tuple[str, str], new: Found) -> None:
    """The first library counts; of its kernels the one with most rows."""
    old = found.get(key)
    if old is None or (old.profile == new.profile and new.curve.rows > old.curve.rows):
        found[key] = new


def _profile_for(on: Device, library: str, names: list[str]) -> tuple[str | None, Tag]:
    own = f"{on.name}--{library}"
    if own in names:
        return own, "fitted"
    lenders = [name for name in names if name.endswith(f"--{library}")]
    distances = {name: _distance(on, name.rpartition("--")[0]) for name in lenders}
    near = {name: d for name, d in distances.items() if d is not None}
    return (
        (min(near, key=lambda name: (near[name], name)), "transferred")
        if near
        else (None, "roofline")
    )


def _distance(on: Device, accelerator: str) -> float | None:
    """Return how far two devices of one maker are apart, in octaves of peak and bandwidth."""
    other = _shipped_device(accelerator)
    if other.vendor != on.vendor:
        return None
    ours, theirs = dict(on.peak_flop_per_s), dict(other.peak_flop_per_s)
    common = next((dtype for dtype in ("bf16", "fp16") if dtype in ours and dtype in theirs), None)
    if common is None:
        return None
    compute = abs(math.log2(ours[common] / theirs[common]))
    memory = abs(math.log2(on.memory_bandwidth_bytes_per_s / other.memory_bandwidth_bytes_per_s))
    return compute + memory
