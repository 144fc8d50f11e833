"""Slices of a torus network: which shape a device count gets, and what a rank group covers."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.spec.hardware import TorusSpec


@dataclass(frozen=True, slots=True)
class Torus:
    """The slice that each domain uses; ranks run along the last axis first."""

    shape: tuple[int, ...]
    rings: tuple[bool, ...]
    """Whether the axis closes with wrap-around links."""


@dataclass(frozen=True, slots=True)
class TorusAxis:
    """What a rank group covers of one axis."""

    length: int
    """Members along the axis."""
    spacing: int
    """Hops between neighbouring members; so many groups share each link."""
    ring: bool
    """The members go all round a closed axis."""


def torus(spec: TorusSpec, devices: int) -> Torus:
    """Return the slice of `devices` devices.

    Of all shapes that fit into the largest slice: first those whose axes all close into rings,
    then the most cubic (smallest sum of the axes), the shortest axis first.

    Raises ValueError where no shape fits.
    """
    limits = tuple(sorted(spec.shape.value))
    shapes = [shape for shape in _factorings(devices, len(limits)) if _fits(shape, limits)]
    if not shapes:
        text = "x".join(str(axis) for axis in spec.shape.value)
        raise ValueError(f"no slice of {devices} devices fits into a torus of {text}")
    multiple = spec.ring_multiple.value

    def rank(shape: tuple[int, ...]) -> tuple[bool, int, tuple[int, ...]]:
        return (any(axis % multiple for axis in shape), sum(shape), shape)

    shape = min(shapes, key=rank)
    return Torus(shape, _rings(shape, spec))


def chosen_slice(spec: TorusSpec, shape: tuple[int, ...], devices: int) -> Torus:
    """Return the slice of `shape`, of which a run on `devices` devices takes one or several.

    Raises ValueError, in words for the user, where there is no such slice or no whole number of it.
    """
    limits, size = spec.shape.value, math.prod(shape)
    most = "x".join(str(axis) for axis in limits)
    if len(shape) != len(limits):
        raise ValueError(f"a slice of a torus of {most} has {len(limits)} axes, not {len(shape)}")
    if not _fits(tuple(sorted(shape)), tuple(sorted(limits))):
        raise ValueError(f"no slice is longer or wider than the torus of {most}")
    if devices % size:
        lower = devices // size * size
        near = f"{lower} or {lower + size}" if lower else f"{size}"
        raise ValueError(
            f"{devices} devices are no whole number of slices of {size}; take {near}, or another "
            "shape"
        )
    return Torus(shape, _rings(shape, spec))


def _rings(shape: tuple[int, ...], spec: TorusSpec) -> tuple[bool, ...]:
    closed = tuple(axis % spec.ring_multiple.value == 0 for axis in shape)
    if spec.rings == "every_axis" and not all(closed):
        return (False,) * len(shape)
    return closed


def _fits(shape: tuple[int, ...], limits: tuple[int, ...]) -> bool:
    return all(axis <= limit for axis, limit in zip(shape, limits, strict=True))


def _factorings(number: int, parts: int, smallest: int = 1) -> list[tuple[int, ...]]:
    """Return every way to write `number` as a product of `parts` factors in rising order."""
    if parts == 1:
        return [(number,)] if number >= smallest else []
    found = []
    factor = smallest
    while factor**parts <= number:
        if number % factor == 0:
            rest = _factorings(number // factor, parts - 1, factor)
            found += [(factor, *tail) for tail in rest]
        factor += 1
    return found


def covered_axes(torus: Torus, size: int, stride: int) -> tuple[TorusAxis, ...] | None:
    """Return what members base + i * stride cover of each axis they extend along, inner first.

    None where the group is no box of the slice: its members then lie wherever the ranks fall.
    """
    covered = []
    for length, ring in reversed(tuple(zip(torus.shape, torus.rings, strict=True))):
        if size == 1:
            break
        if stride >= length:
            if stride % length:
                return None
            stride //= length
            continue
        along = min(size, length // stride)
        if length % (along * stride) or size % along:
            return None
        if along > 1:
            covered.append(TorusAxis(along, stride, ring and along * stride == length))
        size //= along
        stride = 1
    return tuple(covered) if size == 1 else None


def box_axes(torus: Torus, groups: NDArray[np.int64]) -> tuple[TorusAxis, ...] | None:
    """Return what every group, a row of devices, covers of each axis, inner first.

    None where one is no box of evenly spaced members, or they are not all alike.
    """
    at = np.unravel_index(groups, torus.shape)
    found = {_box(torus, [axis[row] for axis in at]) for row in range(len(groups))}
    return found.pop() if len(found) == 1 else None


def _box(torus: Torus, at: list[NDArray[np.int64]]) -> tuple[TorusAxis, ...] | None:
    axes, size = list[TorusAxis](), 1
    for length, ring, here in reversed(list(zip(torus.shape, torus.rings, at, strict=True))):
        values = np.unique(here)
        steps = np.unique(np.diff(values))
        if len(steps) > 1:
            return None
        size *= len(values)
        if len(steps):
            along, spacing = len(values), int(steps[0])
            axes.append(TorusAxis(along, spacing, ring and along * spacing == length))
    return tuple(axes) if size == len(at[0]) else None


def slice_size(devices: int, domain: int) -> int:
    """Return the devices of each slice when `devices` do not fit into one `domain`.

    Raises ValueError where the slices would be unequal.
    """
    slices = math.ceil(devices / domain)
    if devices % slices:
        raise ValueError(
            f"{devices} devices need {slices} slices of at most {domain} and do not divide equally"
        )
    return devices // slices
