"""Slices of a torus: their shape, their rings, and what rank groups cover of them."""

from itertools import pairwise, product
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.hardware.profiles import load_cluster
from moesim.hardware.torus import Torus, TorusAxis, chosen_slice, covered_axes, slice_size, torus
from moesim.spec.hardware import TorusSpec


def _torus(name: str) -> TorusSpec:
    spec = load_cluster(name).scale_up.torus
    assert spec is not None
    return spec


@pytest.mark.parametrize(
    ("name", "devices", "shape", "rings"),
    [
        # Shapes that Google Cloud's documentation lists for these counts.
        ("tpu-v4-pod", 8, (2, 2, 2), (False, False, False)),
        ("tpu-v4-pod", 16, (2, 2, 4), (False, False, False)),
        ("tpu-v4-pod", 64, (4, 4, 4), (True, True, True)),
        ("tpu-v4-pod", 192, (4, 4, 12), (True, True, True)),
        ("tpu-v4-pod", 512, (8, 8, 8), (True, True, True)),
        ("tpu-v4-pod", 4096, (16, 16, 16), (True, True, True)),
        ("tpu-v5p-pod", 8960, (16, 20, 28), (True, True, True)),
        ("tpu-v5e-pod", 32, (4, 8), (False, False)),
        ("tpu-v5e-pod", 128, (8, 16), (False, True)),
        ("tpu-v6e-pod", 256, (16, 16), (True, True)),
        ("tpu-v3-pod", 16, (4, 4), (False, False)),
        ("tpu-v3-pod", 1024, (32, 32), (True, True)),
        ("tpu-v7x-pod", 9216, (16, 24, 24), (True, True, True)),
    ],
)
def test_slices(name: str, devices: int, shape: tuple[int, ...], rings: tuple[bool, ...]) -> None:
    assert torus(_torus(name), devices) == Torus(shape, rings)


def test_a_count_that_fits_no_slice() -> None:
    # 248 = 8 x 31, and 31 is longer than an axis of 16.
    with pytest.raises(ValueError, match="no slice of 248 devices fits into a torus of 16x16"):
        torus(_torus("tpu-v5e-pod"), 248)


def test_several_slices_are_equal() -> None:
    assert slice_size(512, 256) == 256
    assert slice_size(384, 256) == 192
    with pytest.raises(ValueError, match="do not divide equally"):
        slice_size(2 * 256 + 8, 256)


def test_a_slice_by_its_shape() -> None:
    """TPU v5p closes where all axes are multiples of 4, TPU v6e each axis of 16 for itself."""
    assert chosen_slice(_torus("tpu-v5p-pod"), (8, 4, 4), 128) == Torus((8, 4, 4), (True,) * 3)
    assert chosen_slice(_torus("tpu-v5p-pod"), (2, 4, 8), 128) == Torus(
        (2, 4, 8), (False, False, False)
    )
    assert chosen_slice(_torus("tpu-v6e-pod"), (16, 8), 512) == Torus((16, 8), (True, False))


@pytest.mark.parametrize(
    ("shape", "devices", "says"),
    [
        ((4, 4), 16, "a slice of a torus of 16x20x28 has 3 axes, not 2"),
        ((4, 4, 32), 512, "no slice is longer or wider than the torus of 16x20x28"),
        ((20, 20, 20), 8000, "no slice is longer or wider than the torus of 16x20x28"),
        ((4, 4, 8), 192, "192 devices are no whole number of slices of 128; take 128 or 256"),
        ((4, 4, 8), 64, "64 devices are no whole number of slices of 128; take 128, or another"),
    ],
)
def test_impossible_shapes(shape: tuple[int, ...], devices: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        chosen_slice(_torus("tpu-v5p-pod"), shape, devices)


def test_groups_on_the_axes() -> None:
    whole = Torus((8, 16), (False, True))
    assert covered_axes(whole, 16, 1) == (TorusAxis(16, 1, ring=True),)
    assert covered_axes(whole, 4, 1) == (TorusAxis(4, 1, ring=False),)
    assert covered_axes(whole, 4, 4) == (TorusAxis(4, 4, ring=True),)
    assert covered_axes(whole, 8, 16) == (TorusAxis(8, 1, ring=False),)
    assert covered_axes(whole, 32, 1) == (TorusAxis(16, 1, ring=True), TorusAxis(2, 1, ring=False))
    assert covered_axes(whole, 1, 4) == ()
    assert covered_axes(whole, 6, 1) is None
    assert covered_axes(whole, 3, 8) is None


@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(lambda axes: tuple(sorted(axes))),
    size=st.integers(1, 12),
    stride=st.integers(1, 12),
    data=st.data(),
)
def test_groups_are_boxes_of_the_slice(
    shape: tuple[int, ...], size: int, stride: int, data: st.DataObject
) -> None:
    """Against enumeration: the members' coordinates are the product of the covered axes."""
    if prod(shape) % (size * stride):
        return
    covered = covered_axes(Torus(shape, (True,) * len(shape)), size, stride)
    if covered is None:
        return
    block = data.draw(st.integers(0, prod(shape) // (size * stride) - 1))
    base = block * size * stride + data.draw(st.integers(0, stride - 1))
    places = list(product(*(range(axis) for axis in shape)))
    members = [places[base + i * stride] for i in range(size)]
    along = [sorted({place[axis] for place in members}) for axis in range(len(shape))]
    assert sorted(members) == sorted(product(*along))
    extended = [(axis, values) for axis, values in enumerate(along) if len(values) > 1]
    assert len(extended) == len(covered)
    for (axis, values), part in zip(reversed(extended), covered, strict=True):
        assert len(values) == part.length
        assert {b - a for a, b in pairwise(values)} == {part.spacing}
        assert part.ring == (part.length * part.spacing == shape[axis])


@given(devices=st.integers(1, 4096))
def test_shapes_multiply_to_the_count(devices: int) -> None:
    spec = _torus("tpu-v4-pod")
    try:
        found = torus(spec, devices)
    except ValueError:
        # Every shape has an axis beyond 16: a prime factor of 17 or more, or too many small ones.
        fits = [s for s in product(range(1, 17), repeat=3) if prod(s) == devices]
        assert not fits
        return
    assert prod(found.shape) == devices
    assert max(found.shape) <= 16
