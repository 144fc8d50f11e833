"""Residual surfaces: exact at knots, linear in between, constant beyond, and robust fits."""

import numpy as np
import pytest

from moesim.cost.surface import (
    Axis,
    Rising,
    Smoothing,
    Surface,
    evaluate,
    fit_surface,
    octaves,
    octaves_outside,
    refined,
)

PLANE = Surface((Axis("x", (0.0, 1.0, 2.0)), Axis("y", (0.0, 2.0))), (0.0, 2.0, 1.0, 3.0, 2.0, 4.0))
"""z = x + y at every knot."""


def test_linear_between_knots_and_constant_beyond() -> None:
    x, y = np.array([0.25, 1.5, 2.0, 9.0, -3.0]), np.array([1.0, 0.5, 2.0, 1.0, 9.0])
    # beyond the edge: x = 9 counts as 2, x = -3 as 0, y = 9 as 2
    assert evaluate(PLANE, (x, y)) == pytest.approx([1.25, 2.0, 4.0, 3.0, 2.0])


def test_distance_outside_counts_all_axes() -> None:
    far = octaves_outside(PLANE.axes, (np.array([3.0, 1.0]), np.array([-1.0, 1.0])))
    assert far == pytest.approx([2.0, 0.0])


def test_an_axis_of_one_knot_is_constant() -> None:
    flat = Surface((Axis("x", (1.0,)),), (0.5,))
    assert evaluate(flat, (np.array([0.0, 5.0]),)) == pytest.approx([0.5, 0.5])


def test_octaves_reach_the_end() -> None:
    assert octaves("m", 0.0, 5.0, 2.0).knots == (0.0, 2.0, 4.0, 6.0)


def test_a_fit_finds_a_plane_through_outliers() -> None:
    generator = np.random.Generator(np.random.Philox(key=3))
    x, y = generator.uniform(0, 4, 2000), generator.uniform(0, 4, 2000)
    truth = 0.1 * x - 0.05 * y
    seen = truth + generator.normal(0, 0.01, 2000)
    seen[::20] += 1.0  # one in twenty is off by a factor of e
    axes = (octaves("x", 0, 4, 1), octaves("y", 0, 4, 1))
    found = fit_surface(axes, (x, y), seen)
    assert np.median(np.abs(evaluate(found, (x, y)) - truth)) < 0.01


def test_points_between_knots_are_no_further_apart_than_the_step() -> None:
    line = refined(Axis("x", (0.0, 0.25, 1.0, 4.0)), 0.5)
    assert line == pytest.approx([0.0, 0.25, 0.625, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])
    assert refined(Axis("x", (2.0,)), 0.5) == pytest.approx([2.0])


def test_a_fit_that_is_to_rise_does() -> None:
    """Rows fall by 0.1 an octave, physics rise by half of that beyond x = 2 only."""
    x = np.linspace(0.0, 4.0, 40)
    points = np.arange(0.0, 4.0, 0.5)
    growth = np.where(points < 2.0, 0.0, 0.025)
    found = fit_surface(
        (octaves("x", 0, 4, 1),), (x,), -0.1 * x, 0.1,
        Rising((points,), (points + 0.5,), growth),
    )  # fmt: skip
    values = evaluate(found, (np.arange(0.0, 4.5, 0.5),))
    assert np.all(np.diff(values) + growth > -3e-3)
    assert values[-1] < values[0]


def test_each_axis_is_smoothed_by_its_own_weights() -> None:
    axes = (Axis("x", (0.0, 1.0)), Axis("y", (0.0, 1.0)))
    corners = (np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]))
    stiff = Smoothing(bend=(0.0, 0.0), slope=(0.0, 1e6))
    found = fit_surface(axes, corners, np.array([0.0, 0.02, 1.0, 1.02]), stiff)
    # level along y, where the two values of each x differ by 0.02, and free along x
    assert found.values == pytest.approx([0.01, 0.01, 1.01, 1.01], abs=2e-3)
