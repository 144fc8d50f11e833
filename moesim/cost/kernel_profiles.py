"""Kernel profiles on disk: found by accelerator and library, read into curves, written as text."""

from dataclasses import dataclass
from pathlib import Path

from moesim.cost.curves import Curve
from moesim.cost.surface import Axis, Surface
from moesim.spec.kernels import CurveSpec, KernelsSpec, TableSpec
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
    )


def _surface(spec: TableSpec) -> Surface:
    axes = tuple(Axis(axis.name, tuple(axis.knots)) for axis in spec.axes)
    return Surface(axes, tuple(int(number) / 1000 for number in spec.values.split()))


def profile_text(profile: KernelProfile) -> str:
    """Return the YAML text of a profile; the same profile gives the same bytes."""
    lines = [
        f"# How long operators take on {profile.accelerator} with {profile.library}: fitted.",
        "# Written by `moesim profile fit`; each curve names its source and its error.",
        f"name: {_quoted(profile.name)}",
        f"accelerator: {_quoted(profile.accelerator)}",
        f"library: {_quoted(profile.library)}",
        f"version: {_quoted(profile.version)}",
    ]
    if profile.description:
        lines.append(f"description: {_quoted(profile.description)}")
    if profile.tables:
        lines.append("tables:")
        lines += [f"  {_quoted(name)}: {_quoted(digest)}" for name, digest in profile.tables]
    lines.append("curves:")
    for curve, kind in zip(profile.curves, profile.kinds, strict=True):
        lines += _curve_lines(curve, kind)
    return "\n".join(lines) + "\n"


def _curve_lines(curve: Curve, kind: str) -> list[str]:
    parameters = ", ".join(f"{name}: {value:.5g}" for name, value in curve.parameters.items())
    lines = [
        f"  - family: {curve.family}",
        f"    dtype: {_quoted(curve.dtype)}",
        *([f"    variant: {_quoted(curve.variant)}"] if curve.variant else []),
        f"    kind: {kind}",
        f"    source: {_quoted(curve.source)}",
        f"    rows: {curve.rows}",
        f"    median_error: {curve.median_error:.4f}",
        f"    p90_error: {curve.p90_error:.4f}",
        f"    parameters: {{{parameters}}}",
    ]
    return lines + (_table_lines(curve.surface) if curve.surface else [])


def _table_lines(surface: Surface) -> list[str]:
    lines = ["    table:", "      axes:"]
    for axis in surface.axes:
        knots = ", ".join(f"{knot:g}" for knot in axis.knots)
        lines.append(f"        - {{name: {_quoted(axis.name)}, knots: [{knots}]}}")
    numbers = [str(round(1000 * value)) for value in surface.values]
    width = len(surface.axes[-1].knots)
    rows = [" ".join(numbers[start : start + width]) for start in range(0, len(numbers), width)]
    return [*lines, "      values: >-", *(f"        {row}" for row in rows)]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
