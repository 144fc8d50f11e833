"""Kernel profiles on disk: found by accelerator and library, read into curves, written as text."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path

from moesim.cost.curves import Curve
from moesim.cost.sites import Sites
from moesim.cost.surface import Axis, Surface
from moesim.spec.kernels import CurveSpec, KernelsSpec, SitesSpec, TableSpec, whole_numbers
from moesim.spec.shipped import find_named, shipped, shipped_names
from moesim.spec.validate import load

CurveKey = tuple[str, str, str]
"""Family, dtype and variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelProfile:
    """What one library makes of one accelerator."""

    name: str
    accelerator: str
    library: str
    version: str
    description: str
    curves: tuple[Curve, ...]
    kinds: tuple[str, ...]
    """For each curve, fitted or measured."""
    tables: tuple[tuple[str, str], ...] = ()
    """Measurement tables that the fit read: file name and SHA-256."""


def folder() -> Path:
    """Return where the shipped kernel profiles are."""
    return shipped("hwprofiles") / "kernels"


def kernel_profile_names() -> list[str]:
    """Return the names of the shipped kernel profiles."""
    return shipped_names(folder())


def load_kernels(name_or_path: str) -> KernelProfile:
    """Return a kernel profile by name, or the one in a .yaml file; ScenarioError if unknown."""
    is_path = name_or_path.endswith((".yaml", ".yml"))
    path = Path(name_or_path) if is_path else find_named(folder(), name_or_path, "kernel profile")
    return kernel_profile(load(KernelsSpec, path))


def kernel_profile(spec: KernelsSpec) -> KernelProfile:
    """Return the profile as a record."""
    return KernelProfile(
        name=spec.name,
        accelerator=spec.accelerator,
        library=spec.library,
        version=spec.version,
        description=spec.description,
        curves=tuple(_curve(curve) for curve in spec.curves),
        kinds=tuple(curve.kind for curve in spec.curves),
        tables=tuple(sorted(spec.tables.items())),
    )


def curve_index(profile: KernelProfile) -> dict[CurveKey, Curve]:
    """Return the curves of a profile by family, dtype and variant."""
    return {(curve.family, curve.dtype, curve.variant): curve for curve in profile.curves}


def _curve(spec: CurveSpec) -> Curve:
    return Curve(
        family=spec.family,
        dtype=spec.dtype,
        variant=spec.variant,
        parameters=dict(spec.parameters),
        surface=_surface(spec.table) if spec.table else None,
        rows=spec.rows,
        median_error=spec.median_error,
        p90_error=spec.p90_error,
        source=spec.source,
        details=tuple(_surface(table) for table in spec.details),
        sites=_sites(spec.sites) if spec.sites else None,
    )


def _surface(spec: TableSpec) -> Surface:
    axes = tuple(Axis(axis.name, tuple(axis.knots)) for axis in spec.axes)
    return Surface(axes, _values(spec.values, spec.step))


def _values(text: str, step: int) -> tuple[float, ...]:
    """Return numbers that count in `step` per mille."""
    return tuple(number * step / 1000 for number in whole_numbers(text))


def _sites(spec: SitesSpec) -> Sites:
    sizes = [log2(float(size)) for size in spec.places.split()]
    width = len(spec.names)
    return Sites(
        names=tuple(spec.names),
        reach=tuple(spec.reach),
        knots=tuple(spec.knots),
        places=tuple(tuple(sizes[i : i + width]) for i in range(0, len(sizes), width)),
        values=_values(spec.values, spec.step),
    )


def profile_text(profile: KernelProfile) -> str:
    """Return the text of a profile; the same profile gives the same bytes.

    It is YAML written as JSON below its comments: a reader of JSON takes a hundredth of the time.
    """
    head = {
        "name": profile.name, "accelerator": profile.accelerator, "library": profile.library,
        "version": profile.version,
        **({"description": profile.description} if profile.description else {}),
    }  # fmt: skip
    lines = [
        f"# How long operators take on {profile.accelerator} with {profile.library}: fitted.",
        "# Written by `moesim profile fit`; each curve names its source and its error.",
        "{",
        *(f"  {_json(key)}: {_json(value)}," for key, value in head.items()),
    ]
    if profile.tables:
        digests = [f"    {_json(name)}: {_json(digest)}" for name, digest in profile.tables]
        lines += ['  "tables": {', ",\n".join(digests), "  },"]
    curves = [
        _curve_text(curve, kind) for curve, kind in zip(profile.curves, profile.kinds, strict=True)
    ]
    return "\n".join([*lines, '  "curves": [', ",\n".join(curves), "  ]", "}"]) + "\n"


def _curve_text(curve: Curve, kind: str) -> str:
    words = {
        "family": curve.family, "dtype": curve.dtype,
        **({"variant": curve.variant} if curve.variant else {}), "kind": kind,
        "source": curve.source,
    }  # fmt: skip
    parameters = ", ".join(
        f"{_json(name)}: {value:.5g}" for name, value in curve.parameters.items()
    )
    lines = [f"{_json(key)}: {_json(value)}" for key, value in words.items()]
    lines += [
        f'"rows": {curve.rows}, "median_error": {curve.median_error:.4f}, '
        f'"p90_error": {curve.p90_error:.4f}',
        f'"parameters": {{{parameters}}}',
        *([f'"table": {_table_text(curve.surface)}'] if curve.surface else []),
        *([_details_text(curve)] if curve.details else []),
        *([f'"sites": {_sites_text(curve.sites)}'] if curve.sites else []),
    ]
    return "    {" + ",\n     ".join(lines) + "}"


def _details_text(curve: Curve) -> str:
    tables = ",\n      ".join(_table_text(table) for table in curve.details)
    return f'"details": [{tables}]'


def _table_text(surface: Surface) -> str:
    axes = ", ".join(
        f'{{"name": {_json(axis.name)}, "knots": [{_listed(axis.knots)}]}}' for axis in surface.axes
    )
    values = _counted(surface.values)
    return f'{{"axes": [{axes}],\n       "step": {_STEP}, "values": "{values}"}}'


_STEP = 5
"""Per mille that values are written in: a small part of what is left of any fit, and one figure
less for most of them."""


def _counted(values: Sequence[float]) -> str:
    """Return numbers with a sign between them."""
    return "".join(f"{round(1000 * value / _STEP):+d}" for value in values).removeprefix("+")


def _sites_text(sites: Sites) -> str:
    names = ", ".join(_json(name) for name in sites.names)
    places = " ".join(f"{2.0**part:.6g}" for place in sites.places for part in place)
    values = _counted(sites.values)
    head = (
        f'"names": [{names}], "reach": [{_listed(sites.reach)}], "knots": [{_listed(sites.knots)}]'
    )
    return (
        f'{{{head},\n       "places": "{places}",\n       "step": {_STEP}, "values": "{values}"}}'
    )


def _listed(knots: Sequence[float]) -> str:
    return ", ".join(f"{knot:g}" for knot in knots)


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
