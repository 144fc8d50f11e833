"""Sites: what they add at, between and far from measured shapes, and what their fit keeps to."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from moesim.cost.curve_fit import fit_curve
from moesim.cost.curves import Array, Chip, Family, Samples, predict_s
from moesim.cost.sites import Layout, Places, Sites, evaluate_sites, fit_sites, nearest
from moesim.cost.surface import Axis
from tests.unit.cost.families.chips import ROUND

TWO = Sites(
    names=("width",), reach=(2.0,), knots=(0.0, 2.0, 4.0), places=((10.0,), (12.0,)),
    values=(0.5, 0.1, 0.3, 0.0, 0.0, 0.2),
)  # fmt: skip


def _at(width: float, rows: float) -> float:
    return float(evaluate_sites(TWO, (np.asarray([width]), np.asarray([rows])))[0])


def test_each_site_counts_one_over_e_after_its_reach() -> None:
    assert _at(10.0, 0.0) == pytest.approx(0.5)
    assert _at(8.0, 0.0) == pytest.approx(0.5 / np.e)
    # at the second site the first one adds 0.3 / e to its 0.2
    assert _at(12.0, 4.0) == pytest.approx(0.2 + 0.3 / np.e)
    assert abs(_at(40.0, 0.0)) < 1e-6


def test_values_are_linear_between_knots_and_hold_beyond() -> None:
    assert _at(10.0, 1.0) == pytest.approx(0.3)
    assert _at(10.0, -5.0) == pytest.approx(0.5)
    assert _at(10.0, 9.0) == pytest.approx(0.3 + 0.2 / np.e)


def test_many_places_are_the_single_ones() -> None:
    widths, rows = np.tile([9.0, 10.5, 12.0], 20), np.linspace(-1.0, 5.0, 60)
    found = evaluate_sites(TWO, (widths, rows))
    assert found == pytest.approx([_at(w, r) for w, r in zip(widths, rows, strict=True)])


def test_an_unknown_coordinate_is_that_of_the_nearest_site() -> None:
    sites = Sites(
        ("hidden", "top_k"), (1.0, 1.0), (0.0, 1.0), ((10.0, 0.0), (12.0, 3.0)), (0.0,) * 4
    )
    hidden, top_k = nearest(sites, {0: np.asarray([10.4, 13.0])})
    assert list(hidden) == [10.4, 13.0]
    assert list(top_k) == [0.0, 3.0]


def _places(samples: Mapping[str, Array]) -> Places:
    return np.log2(samples["width"]), np.log2(samples["rows"])


def _samples(places: Places) -> Samples:
    return {"width": np.exp2(places[0]), "rows": np.exp2(places[1])}


LAYOUT = Layout(
    names=("width",), reach=(1.0,), step=1.0, most=8, places=_places, samples_at=(_samples,),
    rising=((0.0, 0.5),),
)  # fmt: skip


def _physics(samples: Samples, chip: Chip, dtype: str, parameters: Mapping[str, float]) -> Array:
    del chip, dtype
    return parameters["s"] * samples["width"] * np.ones_like(samples["rows"])


FAMILY = Family(
    name="wide", table="none", physics=_physics, start=lambda _chip, _dtype: {"s": 1e-6},
    coordinates=lambda samples: (np.log2(samples["rows"]),),
    axes=(Axis("log2_rows", (0.0, 8.0)),), sites=LAYOUT,
)  # fmt: skip


def _grid(*widths: float) -> dict[str, Array]:
    rows = np.tile(np.exp2(np.arange(9.0)), len(widths))
    return {"width": np.repeat(widths, 9), "rows": rows}


def test_a_shape_with_a_kernel_of_its_own_is_met_and_others_stay() -> None:
    samples = _grid(64.0, 256.0, 1024.0, 4096.0, 16384.0)
    slow = np.where(samples["width"] == 1024.0, 1.5, 1.0)
    curve = fit_curve(FAMILY, samples, 2e-6 * samples["width"] * slow, ROUND, "bf16")
    error = predict_s(FAMILY, curve, samples, ROUND) / (2e-6 * samples["width"] * slow) - 1
    assert np.max(np.abs(error)) < 0.05
    assert curve.sites is not None
    without = replace(curve, sites=None)
    assert (
        np.max(np.abs(predict_s(FAMILY, without, samples, ROUND) / (2e-6 * samples["width"]) - 1))
        < 0.05
    )
    far = {"width": np.asarray([2.0**30]), "rows": np.asarray([4.0])}
    assert predict_s(FAMILY, curve, far, ROUND) == pytest.approx(
        predict_s(FAMILY, without, far, ROUND), rel=1e-3
    )


def test_fewer_rows_are_believed_less() -> None:
    def kept(times: int) -> float:
        places = (np.full(times, 3.0), np.full(times, 2.0))
        sites = fit_sites(LAYOUT, places, np.full(times, 0.1), _flat)
        return (
            0.0
            if sites is None
            else float(evaluate_sites(sites, (places[0][:1], places[1][:1]))[0])
        )

    assert 0.0 < kept(4) < kept(40) <= 0.1


def _flat(samples: Mapping[str, Array]) -> Array:
    return np.zeros(len(samples["rows"]))


def test_times_do_not_fall_with_the_rows_at_a_site() -> None:
    rows = np.tile(np.arange(9.0), 4)
    places = (np.full(36, 8.0), rows)
    sites = fit_sites(LAYOUT, places, np.where(rows < 4.0, 0.4, 0.0), _flat)
    assert sites is not None
    line = np.linspace(0.0, 8.0, 33)
    along = evaluate_sites(sites, (np.full(33, 8.0), line))
    assert np.min(np.diff(along)) > -0.01
    free = fit_sites(
        replace(LAYOUT, rising=((0.0, 0.0),)), places, np.where(rows < 4.0, 0.4, 0.0), _flat
    )
    assert free is not None
    assert np.min(np.diff(evaluate_sites(free, (np.full(33, 8.0), line)))) < -0.05


def test_nothing_left_needs_no_site_and_no_more_than_allowed_are_kept() -> None:
    generator = np.random.Generator(np.random.Philox(key=3))
    places = (np.repeat(np.arange(20.0), 9), np.tile(np.arange(9.0), 20))
    assert fit_sites(LAYOUT, places, np.zeros(180), _flat) is None
    residual = np.repeat(generator.normal(0.0, 0.3, 20), 9)
    sites = fit_sites(LAYOUT, places, residual, _flat)
    assert sites is not None
    assert len(sites.places) == LAYOUT.most
    assert sites == fit_sites(LAYOUT, places, residual, _flat)
