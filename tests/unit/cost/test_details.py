"""Finer tables beside a surface: sums by hand, what a fit puts where, and what it leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.cost.curve_fit import fit_curve
from moesim.cost.curves import Family, Samples, predict_s
from moesim.cost.details import Detail, Layer, evaluate_details, fit_layers, layer, scaled
from moesim.cost.families.gemm import GEMM, place, start, tiled_gemm_s
from moesim.cost.families.wide_waves import scalar_wide_wave, wide_wave
from moesim.cost.surface import Array, Axis, Surface, evaluate
from tests.unit.cost.families.chips import ROUND

A, B = Axis("a", (0.0, 1.0, 2.0)), Axis("b", (0.0, 4.0))
FLAT = Surface((A,), (0.0, 1.0, 4.0))
CROSSED = Surface((A, B), (0.0, 1.0, 2.0, 3.0, 4.0, 5.0))


def test_tables_add_up() -> None:
    at = {"a": np.array([0.5, 2.0]), "b": np.array([2.0, 4.0]), "c": np.zeros(2)}
    # 0.5 and (0 + 1 + 2 + 3) / 4; 4 and the last corner
    assert evaluate_details((FLAT, CROSSED), at.__getitem__) == pytest.approx(
        [0.5 + 1.5, 4.0 + 5.0]
    )
    assert evaluate_details(scaled((FLAT, CROSSED), 0.5), at.__getitem__) == pytest.approx(
        [1.0, 4.5]
    )
    assert evaluate_details((), at.__getitem__) == 0.0


def test_a_table_has_the_knots_around_its_rows() -> None:
    rows = {"a": np.array([0.2, 0.9]), "b": np.array([0.0, 4.0])}
    found = layer(Detail((A, B)), rows.__getitem__, None)
    assert [axis.knots for axis in found.axes] == [(0.0, 1.0), (0.0, 4.0)]


def test_layers_share_what_each_can_hold() -> None:
    """A slope that the coarse layer holds and a peak that only the fine one does."""
    x = np.tile(np.arange(0.0, 8.001, 0.125), 20)
    wanted = 0.1 * x + np.where(np.abs(x - 5.0) < 0.01, 0.4, 0.0)
    coarse = Layer((Axis("x", (0.0, 8.0)),), (x,))
    fine = Layer((Axis("x", tuple(np.arange(0.0, 8.001, 0.125))),), (x,))
    alone = fit_layers([coarse], wanted, 0.3, None)
    both = fit_layers([coarse, fine], wanted, 0.3, None)
    at = (np.array([2.0, 5.0]),)
    assert evaluate(alone[0], at) == pytest.approx([0.2, 0.5], abs=0.02)
    assert sum(evaluate(one, at) for one in both) == pytest.approx([0.2, 0.9], abs=0.05)


def test_no_layer_lets_the_sum_fall() -> None:
    x = np.repeat(np.arange(9.0), 30)
    dip = np.where(x == 4.0, -1.0, 0.0)
    axes = (Axis("x", tuple(np.arange(9.0))),)
    before = (np.arange(8.0),)
    one = Layer(axes, (x,), before, (before[0] + 1.0,))
    free = fit_layers([replace(one, before=(), after=())] * 2, dip, 0.03, None)
    held = fit_layers([one, one], dip, 0.03, np.full(8, 0.2))
    at = (np.arange(9.0),)
    assert np.min(np.diff(sum(evaluate(table, at) for table in free))) < -0.7
    assert np.min(np.diff(sum(evaluate(table, at) for table in held)) + 0.2) > -0.05


def test_a_product_lies_where_its_tiles_fill_the_units() -> None:
    samples = {"m": np.array([256.0]), "n": np.array([1025.0]), "k": np.array([512.0])}
    assert place(samples, ROUND, "log2_k") == pytest.approx([9.0])
    # 2 x 9 tiles of 128 x 128, 2 x 5 of 128 x 256, 4 x 9 of 64 x 128 on 100 units
    expected = {"128x128": 18.0, "128x256": 10.0, "64x128": 36.0}
    for tile, tiles in expected.items():
        assert 100.0 * np.exp2(place(samples, ROUND, f"log2_waves_{tile}")) == pytest.approx(
            [tiles]
        )


def test_a_layer_that_is_free_may_fall() -> None:
    detail, rows = Detail((A,), held=False), {"a": np.array([0.0, 2.0])}
    assert layer(detail, rows.__getitem__, (rows.__getitem__, rows.__getitem__)).before == ()


@pytest.mark.parametrize(
    ("m", "n", "slow"),
    [
        (256, 12288, 1.0),  # 2 x 64 tiles of 128 x 192, 128 x 160 has 154
        (192, 12288, 0.0),  # the same with fewer rows
        (512, 5120, 0.0),  # 4 x 32 tiles of 128 x 160
        (512, 8192, 2.0),  # 4 x 32 of 128 x 256; of 256 x 128 as many
        (1025, 3584, 0.0),  # 9 x 14 of 128 x 256: an odd number of rows of tiles
        (769, 3072, 3.0),  # 4 x 32 of 256 x 96, 7 x 16 of 128 x 192
        (3072, 1024, 0.0),  # 12 x 11 of 256 x 96: an odd number of columns
        (512, 12288, 0.0),  # two waves whatever the tiles
    ],
)
def test_one_wave_of_wide_tiles(m: float, n: float, slow: float) -> None:
    """132 units of an H100; at k = 4096 slow ones take 87 to 98 us, the others 40 at most."""
    assert wide_wave(np.array([m]), np.array([n]), 132) == pytest.approx([slow])
    assert scalar_wide_wave(m, n, 132) == slow


@given(m=st.floats(1, 2**17), n=st.floats(1, 2**17), units=st.integers(1, 200))
@settings(max_examples=200, deadline=None)
def test_scalar_waves_are_the_vector_s(m: float, n: float, units: int) -> None:
    vector = wide_wave(np.array([m]), np.array([n]), units)
    assert vector == pytest.approx([scalar_wide_wave(m, n, units)])


def products(rows: int, key: int) -> tuple[Samples, Array]:
    """Products a fifth slower in the second half of each of the first waves than physics says."""
    generator = np.random.Generator(np.random.Philox(key=key))
    samples = {
        "m": np.floor(np.exp2(generator.uniform(4, 13, rows))),
        "n": np.floor(np.exp2(generator.uniform(8, 13, rows))),
        "k": np.floor(np.exp2(generator.uniform(9, 13, rows))),
    }
    tiles = np.ceil(samples["m"] / 128) * np.ceil(samples["n"] / 128) / ROUND.compute_units
    late = np.where((tiles % 1.0 > 0.5) & (tiles < 4.0), 1.2, 1.0)
    return samples, tiled_gemm_s(samples, ROUND, "bf16", start(ROUND, "bf16")) * late


def error(family: Family, rows: int) -> tuple[float, int]:
    """Return the mean error on products that the fit did not see, and how many tables it has."""
    curve = fit_curve(family, *products(rows, key=1), ROUND, "bf16")
    samples, seconds = products(1000, key=2)
    off = np.abs(predict_s(family, curve, samples, ROUND) / seconds - 1)
    return float(np.mean(off)), len(curve.details)


def test_details_hold_what_a_wave_costs() -> None:
    plain, none = error(replace(GEMM, place=None, details=()), 3000)
    fine, tables = error(GEMM, 3000)
    assert none == 0 and tables == len(GEMM.details) - 1
    assert fine < 0.75 * plain


def test_few_rows_have_no_details() -> None:
    assert error(GEMM, 400)[1] == 0
