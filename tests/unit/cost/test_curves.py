"""Where a curve was fitted, where it is extrapolated, and that fits do not let times fall."""

from collections.abc import Mapping

import numpy as np
import pytest

from moesim.cost.curve_fit import fit_curve
from moesim.cost.curves import (
    Array,
    Chip,
    Curve,
    Family,
    Samples,
    is_extrapolated,
    octaves_beyond,
    predict_s,
    uncertainty,
)
from moesim.cost.surface import Axis
from tests.unit.cost.families.chips import ROUND


def _physics(samples: Samples, chip: Chip, dtype: str, parameters: Mapping[str, float]) -> Array:
    """Flat up to 256, then rising with the size."""
    del chip, dtype
    return parameters["launch_s"] * np.maximum(samples["size"] / 256.0, 1.0)


def _start(chip: Chip, dtype: str) -> dict[str, float]:
    del chip, dtype
    return {"launch_s": 1e-6}


def _places(samples: Samples) -> tuple[Array, ...]:
    return (np.log2(samples["size"]),)


def _family(*, rising: bool) -> Family:
    return Family(
        name="flat", table="none", physics=_physics, start=_start, coordinates=_places,
        axes=(Axis("log2_size", (0.0, 2.0, 4.0, 6.0, 8.0, 16.0)),),
        samples_at=lambda places: {"size": np.exp2(places[0])},
        rising=((1.0,),) if rising else (),
    )  # fmt: skip


def _sizes(*logs: float) -> dict[str, Array]:
    return {"size": np.exp2(np.asarray(logs))}


def _fitted(*, rising: bool, low: float = 1.0, high: float = 9.0) -> Curve:
    """Times fall by a fifth over the flat part, as after a change of kernels."""
    logs = np.linspace(low, high, 40)
    samples = _sizes(*logs)
    measured = 1e-6 * np.maximum(samples["size"] / 256.0, np.where(logs > 5.0, 0.8, 1.0))
    return fit_curve(_family(rising=rising), samples, measured, ROUND, "bf16")


def test_knots_end_half_an_octave_beyond_the_rows_or_at_the_next_knot() -> None:
    surface = _fitted(rising=False).surface
    assert surface is not None
    # 1 - 0.5 lies above the knot at 0, 9 + 0.5 below that at 16
    assert surface.axes[0].knots == (0.5, 2.0, 4.0, 6.0, 8.0, 9.5)
    whole = _fitted(rising=False, low=0.1, high=15.9).surface
    assert whole is not None and whole.axes[0].knots == (0.0, 2.0, 4.0, 6.0, 8.0, 16.0)


def test_a_knot_close_to_the_end_makes_room() -> None:
    surface = _fitted(rising=False, low=2.6, high=7.7).surface
    assert surface is not None and surface.axes[0].knots == (2.1, 4.0, 6.0, 8.0)
    surface = _fitted(rising=False, low=1.0, high=8.1).surface
    assert surface is not None and surface.axes[0].knots == (0.5, 2.0, 4.0, 6.0, 8.0, 8.6)


def test_rows_of_one_size_give_one_knot() -> None:
    surface = _fitted(rising=False, low=8.0, high=8.0).surface
    assert surface is not None and surface.axes[0].knots == (8.0,)


def test_what_lies_outside_of_the_knots_is_extrapolated() -> None:
    family, curve = _family(rising=False), _fitted(rising=False)
    samples = _sizes(-1.5, 0.5, 5.0, 9.5, 9.6, 13.5)
    assert octaves_beyond(family, curve, samples) == pytest.approx([2.0, 0, 0, 0, 0.1, 4.0])
    assert list(is_extrapolated(family, curve, samples)) == [True, False, False, False, True, True]
    doubt = 1.48 * max(0.01, curve.median_error)
    assert uncertainty(family, curve, samples) == pytest.approx(
        [2 * doubt, doubt, doubt, doubt, doubt * 2**0.05, 4 * doubt]
    )


def test_a_rising_fit_does_not_fall_where_the_rows_do() -> None:
    sizes = _sizes(*np.arange(-4.0, 20.0, 0.5))
    falls = {}
    for rising in (False, True):
        seconds = predict_s(_family(rising=rising), _fitted(rising=rising), sizes, ROUND)
        falls[rising] = float(np.min(seconds[1:] / seconds[:-1]))
    assert falls[False] < 0.97
    assert falls[True] > 0.998
