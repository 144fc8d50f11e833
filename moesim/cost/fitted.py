"""Which fitted curves a device and a software profile have for each operator.

Curves measured on the device itself come first, in the order of libraries that the software profile
prefers; then those of the nearest measured devices of the same maker, which lend them while the
datasheet figures are swapped; where there is neither, the roofline stands.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from moesim.cost.chips import chip
from moesim.cost.curves import Chip, Curve
from moesim.cost.families.collectives import COLLECTIVES
from moesim.cost.families.elementwise import ELEMENTWISE
from moesim.cost.families.number_types import NUMBER_TYPES
from moesim.cost.kernel_profiles import KernelProfile, kernel_profile_names, load_kernels
from moesim.cost.times import Known, Tag
from moesim.cost.transferred import DEVIATION_PER_MEDIAN, octaves_apart, transferred_uncertainty
from moesim.errors import ProfileError, nearest
from moesim.hardware.device import Device, device
from moesim.hardware.profiles import load_accelerator

FAMILY_OF = {
    "gemm": ("gemm", "simple_gemm"),
    "grouped_gemm": ("grouped_gemm", "moe", "simple_grouped_gemm"),
    "attention": (
        "attention_prefill", "attention_decode", "mla_prefill_kernel", "mla_decode_kernel",
        "mla_absorbed_prefill_kernel", "mla_absorbed_prefill_module", "mla_prefill_module",
        "mla_decode_module", "mla_bmm", "simple_attention",
    ),
    "elementwise": (*ELEMENTWISE, "simple_elementwise"),
    "collectives": (
        *COLLECTIVES, *(f"{name}_across" for name in COLLECTIVES), "custom_all_reduce",
        "simple_collective",
    ),
    "exchange": ("forwarded", "direct", "distinct", "prepare"),
}  # fmt: skip
"""The families behind each key of a software profile's `kernels`."""

DTYPES = {
    "bf16": ("bf16", "fp16", "fp32"),
    "fp16": ("fp16", "bf16", "fp32"),
    "fp8": ("fp8_tensor_static", "fp8_tensor", "fp8_block128", "fp8"),
    "fp32": ("fp32",),
}
"""Dtypes of the measurement tables that stand for a compute type, the first that exists."""

_FORMATS_ALIKE = ("gemm", "moe", "grouped_gemm", "attention_prefill", "simple_gemm",
                  "simple_grouped_gemm", "simple_attention")  # fmt: skip
"""Families that a curve of twice as wide numbers cannot stand in for."""


@dataclass(frozen=True, slots=True)
class Found:
    """A curve, and whether it was fitted on this device or lent by another."""

    curve: Curve
    tag: Tag
    profile: str
    octaves: float = 0.0
    """How far the lender is from this device, in octaves of peak and bandwidth."""


@dataclass(frozen=True, slots=True)
class Lender:
    """A kernel profile by name or path, and how far its device is from the one asked for."""

    name: str
    octaves: float | None = None
    """None: it is the device itself."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """The curves of one device; profiles are read when something asks for them."""

    chip: Chip
    lenders: Mapping[str, tuple[Lender, ...]]
    """Profiles for each key of FAMILY_OF, the most preferred first."""
    found: dict[Any, Found | None] = field(default_factory=dict, compare=False)
    """Curves that were asked for before."""
    several: dict[Any, tuple[Found, ...]] = field(default_factory=dict, compare=False)
    """The same, where all that there are were asked for."""
    memo: dict[Any, Known | None] = field(default_factory=dict, compare=False)
    """What operators cost that were asked for before."""

    def first(self, dtype: str, *roles: tuple[str, str]) -> Found | None:
        """Return the curve for one of these families and roles, or None.

        A role is the variant where it says what a kernel does; else it is empty. The most preferred
        profile that has any of them decides, then the order of `roles`, then that of DTYPES.
        """
        asked = (dtype, roles)
        if asked not in self.found:
            self.found[asked] = self._search(dtype, roles)
        return self.found[asked]

    def _search(self, dtype: str, roles: tuple[tuple[str, str], ...]) -> Found | None:
        if roles[0][0] in _FORMATS_ALIKE and not _has_units(dtype, self.chip):
            return None  # the device has no units for it, whatever others measured
        key = next(key for key, families in FAMILY_OF.items() if roles[0][0] in families)
        wanted = [(family, name, role) for family, role in roles
                  for name in stand_ins(dtype, family)]  # fmt: skip
        few: Found | None = None
        for lender in self.lenders.get(key, ()):
            curves = _main_curves(lender.name)
            for role_of in wanted:
                if role_of not in curves:
                    continue
                found = _lent(*curves[role_of], lender)
                if lender.octaves is None or found.curve.rows >= _ENOUGH_TO_LEND:
                    return found
                few = few or found
        return few

    def kind(self, dtype: str, family: str, ending: str) -> Found | None:
        """Return the curve of a special case: its variant is a kernel's name, then `ending`.

        Endings are such as `fp8 cache` or `fp8 cache, nvfp4 projections`; of several kernels the
        one with most rows. A device's own profile comes first, then those that lend.
        """
        asked = (dtype, family, ending)
        if asked not in self.found:
            self.found[asked] = self._kind(dtype, family, ending)
        return self.found[asked]

    def every(self, dtype: str, family: str, ending: str = "") -> tuple[Found, ...]:
        """Return the curves of a special case of all profiles and kernels, the preferred first."""
        asked = ("every", dtype, family, ending)
        if asked not in self.several:
            self.several[asked] = tuple(self._every(dtype, family, ending))
        return self.several[asked]

    def _every(self, dtype: str, family: str, ending: str) -> Iterator[Found]:
        key = next(key for key, families in FAMILY_OF.items() if family in families)
        for lender in self.lenders.get(key, ()):
            for name in stand_ins(dtype, family):
                for found in _variants(lender.name, name, family).get(ending, ()):
                    yield _lent(*found, lender)

    def _kind(self, dtype: str, family: str, ending: str) -> Found | None:
        key = next(key for key, families in FAMILY_OF.items() if family in families)
        for lender in self.lenders.get(key, ()):
            for name in stand_ins(dtype, family):
                found = _special(lender.name, name, family).get(ending)
                if found is not None:
                    return _lent(*found, lender)
        return None


_ENOUGH_TO_LEND = 12
"""Rows that a curve of another device rests on, unless there is no better one."""


def _has_units(dtype: str, on: Chip) -> bool:
    """Tell whether a chip multiplies this format; weights alone may be narrower than its units."""
    if dtype in NUMBER_TYPES and dtype not in DTYPES:
        return NUMBER_TYPES[dtype].peaks[0] in on.peak_flop_per_s
    return dtype in on.peak_flop_per_s


def stand_ins(dtype: str, family: str) -> tuple[str, ...]:
    """Return the dtypes of tables whose curves stand for one, itself first."""
    names = DTYPES.get(dtype, (dtype,))
    if dtype != "fp32" and family in _FORMATS_ALIKE:
        return tuple(name for name in names if name != "fp32")
    return names


def _lent(curve: Curve, kind: str, lender: Lender) -> Found:
    """Return a curve as it counts here: one from afar is expected to be off by more."""
    if lender.octaves is None:
        return Found(curve, "measured" if kind == "measured" else "fitted", _shown(lender))
    spread = transferred_uncertainty(curve.median_error, lender.octaves)
    farther = replace(curve, median_error=spread / DEVIATION_PER_MEDIAN)
    return Found(farther, "transferred", _shown(lender), lender.octaves)


def _shown(lender: Lender) -> str:
    return Path(lender.name).stem if is_path(lender.name) else lender.name


def kernels_for(
    on: Device, link_bytes_per_s: float, libraries: Mapping[str, tuple[str, ...]]
) -> Kernels:
    """Return the curves for `on`; `libraries` are those preferred for each key of FAMILY_OF.

    A library is a name, or the path of a kernel profile. Raises ProfileError for an unknown name
    and for a profile of another accelerator.
    """
    lenders: dict[str, tuple[Lender, ...]] = {}
    for key, preferred in libraries.items():
        own = [lender for library in preferred for lender in _own(on, library)]
        lent = [lender for library in preferred for lender in _others(on, library)]
        lent.sort(key=lambda lender: lender.octaves or 0.0)
        lenders[key] = (*own, *lent)
    return Kernels(chip(on, link_bytes_per_s), lenders)


def _own(on: Device, library: str) -> Iterator[Lender]:
    if is_path(library):
        profile = load_kernels(library)
        if profile.accelerator != on.name:
            raise ProfileError(
                f"the kernel profile {library} was measured on {profile.accelerator}, this run is "
                f"on {on.name}: take the cluster profile that was written with it"
            )
        yield Lender(library)
    elif f"{on.name}--{library}" in kernel_profile_names():
        yield Lender(f"{on.name}--{library}")


def _others(on: Device, library: str) -> Iterator[Lender]:
    """Yield the profiles of other devices of the same maker with this library."""
    if is_path(library):
        return
    names = [name for name in kernel_profile_names() if name.endswith(f"--{library}")]
    if not names:
        known = sorted({name.rpartition("--")[2] for name in kernel_profile_names()})
        raise ProfileError(
            f"no kernel profile has the library '{library[:100]}'.{nearest(library, known)} "
            f"Known: {', '.join(known)}."
        )
    for name in names:
        octaves = octaves_apart(chip(on), _shipped_chip(name.rpartition("--")[0]))
        if octaves is not None and name != f"{on.name}--{library}":
            yield Lender(name, octaves)


def is_path(library: str) -> bool:
    """Tell the path of a kernel profile from the name of a library."""
    return library.endswith((".yaml", ".yml"))


_Role = tuple[str, str, str]
"""Family, dtype and role."""


def _main_curves(name: str) -> Mapping[_Role, tuple[Curve, str]]:
    """Return the curves of a profile by role, with their kind."""
    return _of_file(name) if is_path(name) else _of_shipped(name)


@lru_cache(maxsize=64)
def _of_shipped(name: str) -> Mapping[_Role, tuple[Curve, str]]:
    """Each shipped profile is read once: it does not change under way."""
    return _of_file(name)


def _special(name: str, dtype: str, family: str) -> Mapping[str, tuple[Curve, str]]:
    """Return a profile's curves of a family by what follows the kernel's name in their variant."""
    return {
        ending: max(found, key=lambda one: one[0].rows)
        for ending, found in _variants(name, dtype, family).items()
    }


@lru_cache(maxsize=16)
def _read(name: str) -> KernelProfile:
    """Return a shipped profile, read once: a run takes dozens of curves from the same few."""
    return load_kernels(name)


@lru_cache(maxsize=256)
def _variants(name: str, dtype: str, family: str) -> Mapping[str, list[tuple[Curve, str]]]:
    """Return the curves of all kernels by what follows the kernel's name in their variant."""
    profile = load_kernels(name) if is_path(name) else _read(name)
    found: dict[str, list[tuple[Curve, str]]] = {}
    for curve, kind in zip(profile.curves, profile.kinds, strict=True):
        if (curve.family, curve.dtype) != (family, dtype):
            continue
        if curve.variant.endswith("_eager"):
            continue  # launched by the host: not the kernel alone
        found.setdefault(curve.variant.partition(", ")[2], []).append((curve, kind))
    return found


def _of_file(name: str) -> Mapping[_Role, tuple[Curve, str]]:
    profile = load_kernels(name) if is_path(name) else _read(name)
    curves: dict[_Role, tuple[Curve, str]] = {}
    for curve, kind in zip(profile.curves, profile.kinds, strict=True):
        role = (curve.family, curve.dtype, _role(curve))
        # of several kernels the one with most rows stands for the library
        if _is_main(curve.variant) and (role not in curves or curves[role][0].rows < curve.rows):
            curves[role] = (curve, kind)
    return curves


def _role(curve: Curve) -> str:
    """Return the variant where it says what a kernel does, not only whose it is."""
    with_roles = curve.family.startswith("simple_") or curve.family in FAMILY_OF["exchange"]
    with_roles = with_roles or curve.family.endswith("_across")  # the fabric between domains
    return curve.variant if with_roles else ""


def _is_main(variant: str) -> bool:
    """Leave out curves of special cases: narrow caches, random loads, launches by the host."""
    return not variant.endswith(("fp8 cache", "skewed", "_eager"))


@lru_cache(maxsize=64)
def _shipped_chip(name: str) -> Chip:
    return chip(device(load_accelerator(name)))
