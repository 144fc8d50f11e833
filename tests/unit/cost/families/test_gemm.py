"""Dense products: sums done by hand, limits, bounds, order, and a fit that finds its way back."""

import time
from dataclasses import replace
from math import isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.cost.curve_fit import fit_curve
from moesim.cost.curves import Array, Curve, Samples, predict_s
from moesim.cost.families.gemm import GEMM, bound_s, padding, scalar_s, start, tiled_gemm_s
from moesim.cost.families.number_types import NUMBER_TYPES, peak_flop_per_s
from tests.unit.cost.families.chips import ROUND

IDEAL = {
    "launch_s": 1e-6,
    "efficiency": 1.0,
    "tile_s": 1e-7,
    "feed_bytes_per_s": 1e30,
    "blend": 0.0,
    "memory_efficiency": 1.0,
    "l2_over_memory": 1.0,
    "sharpness": 2.0,
    "split_s": 1e3,  # so dear that k is never cut
}


def shapes(m: float, n: float, k: float) -> dict[str, Array]:
    return {"m": np.array([m]), "n": np.array([n]), "k": np.array([k])}


def one(m: float, n: float, k: float, dtype: str = "bf16", **changes: float) -> float:
    parameters = {**IDEAL, "quantise": 1.0, **changes}
    return float(tiled_gemm_s(shapes(m, n, k), ROUND, dtype, parameters)[0])


def curve(dtype: str) -> Curve:
    return Curve(
        family="gemm",
        dtype=dtype,
        variant="",
        parameters=start(ROUND, dtype),
        surface=None,
        rows=0,
        median_error=0.0,
        p90_error=0.0,
        source="test",
    )


def made_up(dtype: str, rows: int, key: int = 1) -> tuple[Samples, Array]:
    """Products timed by known parameters, with 1 % of noise and a slope that physics lacks."""
    generator = np.random.Generator(np.random.Philox(key=key))
    samples = {
        "m": np.floor(np.exp2(generator.uniform(0, 15, rows))),
        "n": np.floor(np.exp2(generator.uniform(8, 15, rows))),
        "k": np.floor(np.exp2(generator.uniform(8, 15, rows))),
    }
    truth = {**start(ROUND, dtype), "efficiency": 0.7, "launch_s": 5e-6, "memory_efficiency": 0.9}
    slope = np.exp(0.02 * (np.log2(samples["n"]) - 11))
    noise = np.exp(generator.normal(0, 0.01, rows))
    return samples, tiled_gemm_s(samples, ROUND, dtype, truth) * slope * noise


def test_one_tile_that_waits_for_compute() -> None:
    # 64 x 64 x 2**20 on one unit of 1e13 FLOP/s: 8.59e9 FLOP, 0.859 ms; bytes 2.7e8 / 2e12 s
    compute = 2 * 64 * 64 * 2**20 / 1e13 + 1e-7
    traffic = (2 * 64 * 2**20 * 2 + 64 * 64 * 2) / 2e12
    assert one(64, 64, 2**20) == pytest.approx(1e-6 + (compute**3 + traffic**3) ** (1 / 3))


def test_a_row_beyond_full_waves_is_padded_to_smaller_tiles() -> None:
    # 1280 x 1280 is 100 tiles of 128 x 128, one wave. One row more: 21 x 20 tiles of 64 x 64,
    # five waves of a quarter of the work, is the best of all tiles
    k, smallest = 2**20, 2 * 64 * 64 * 2**20 / 1e13
    assert unbound(1280, 1280, k) == pytest.approx(1e-6 + 4 * smallest + 1e-7)
    assert unbound(1281, 1280, k) == pytest.approx(1e-6 + 5 * (smallest + 1e-7))


def test_a_blended_last_wave_costs_its_share() -> None:
    k, smallest = 2**20, 2 * 64 * 64 * 2**20 / 1e13
    expected = 1e-6 + 21 * 5 / 100 * (4 * smallest + 1e-7)  # tiles of 64 x 256
    assert unbound(1281, 1280, k, blend=1.0) == pytest.approx(expected)


def unbound(m: float, n: float, k: float, **changes: float) -> float:
    """Return the seconds on a chip whose memory takes no time."""
    chip = replace(ROUND, memory_bandwidth_bytes_per_s=1e24)
    return float(tiled_gemm_s(shapes(m, n, k), chip, "bf16", {**IDEAL, **changes})[0])


def test_few_rows_stream_the_weights() -> None:
    weights_s = 2 * 16384 * 16384 / 2e12
    assert one(1, 16384, 16384, tile_s=1e-12) == pytest.approx(weights_s, rel=0.05)


def test_large_products_run_at_the_peak() -> None:
    flop_s = 2 * 25600.0**3 / 1e15
    assert one(25600, 25600, 25600) == pytest.approx(flop_s, rel=0.01)


def test_cutting_k_helps_a_lone_tile() -> None:
    assert one(64, 64, 2**20, split_s=1e-6) < 0.5 * one(64, 64, 2**20)


def test_quantising_reads_bf16_and_writes_fp8() -> None:
    extra = one(8192, 8192, 8192, "fp8_tensor") - one(8192, 8192, 8192, "fp8_tensor_static")
    assert extra == pytest.approx(3 * 8192 * 8192 / 2e12)


@pytest.mark.parametrize("dtype", sorted(NUMBER_TYPES))
def test_any_positive_shape_has_a_time(dtype: str) -> None:
    sizes = (1e-3, 1.0, 17.0, 4096.0, 1e7, 1e12)
    grid = np.meshgrid(sizes, sizes, sizes)
    samples = {name: axis.ravel() for name, axis in zip("mnk", grid, strict=True)}
    with np.errstate(all="raise"):
        seconds = predict_s(GEMM, curve(dtype), samples, ROUND)
    assert np.all(np.isfinite(seconds)) and np.all(seconds > 0)


SIZE = st.floats(min_value=1, max_value=2**20)


@given(m=SIZE, n=SIZE, k=SIZE, axis=st.sampled_from("mnk"), by=st.floats(1.0, 16.0))
@settings(max_examples=200, deadline=None)
def test_physics_never_falls_as_a_product_grows(
    m: float, n: float, k: float, axis: str, by: float
) -> None:
    small = {"m": m, "n": n, "k": k}
    large = {**small, axis: small[axis] * by}
    for dtype in ("bf16", "fp8_block128", "fp8_tensor"):
        before, after = one(**small, dtype=dtype), one(**large, dtype=dtype)
        assert after >= before * (1 - 1e-12)


@given(m=SIZE, n=SIZE, k=SIZE)
@settings(max_examples=100, deadline=None)
def test_no_prediction_beats_peak_or_memory(m: float, n: float, k: float) -> None:
    fast = replace(curve("bf16"), parameters=WILD)
    samples = shapes(m, n, k)
    # activations count as far as they fit neither before nor after into the cache
    moved = 2 * n * k + max(2 * m * k - 5e7, 0) + max(2 * m * n - 5e7, 0)
    least = max(2 * m * n * k / 1e15, moved / 2e12)
    assert bound_s(samples, ROUND, "bf16")[0] == pytest.approx(least)
    assert predict_s(GEMM, fast, samples, ROUND)[0] >= least


WILD = {**IDEAL, "launch_s": 1e-12, "tile_s": 1e-12, "efficiency": 50.0, "l2_over_memory": 50.0}


def test_padding_counts_beyond_64_rows() -> None:
    found = padding(np.array([1.0, 17.0, 64.0, 65.0, 96.0, 128.0, 129.0]))
    assert found == pytest.approx([0, 0, 0, 63 / 128, 0.25, 0, 127 / 256])


@pytest.fixture(scope="module", params=["bf16", "fp8_block128"])
def fitted(request: pytest.FixtureRequest) -> Curve:
    dtype = str(request.param)
    samples, seconds = made_up(dtype, 3000)
    return fit_curve(GEMM, samples, seconds, ROUND, dtype)


def test_a_fit_finds_the_parameters_and_the_slope(fitted: Curve) -> None:
    samples, seconds = made_up(fitted.dtype, 500, key=2)
    error = np.abs(predict_s(GEMM, fitted, samples, ROUND) / seconds - 1)
    assert np.median(error) < 0.02 and np.quantile(error, 0.9) < 0.05
    assert fitted.parameters["launch_s"] == pytest.approx(5e-6, rel=0.15)
    assert fitted.parameters["memory_efficiency"] == pytest.approx(0.9, rel=0.15)


def test_a_fitted_time_hardly_falls_as_a_product_grows(fitted: Curve) -> None:
    samples = {
        name: np.ceil(column / 128) * 128 for name, column in made_up("bf16", 800)[0].items()
    }
    before = predict_s(GEMM, fitted, samples, ROUND)
    for name in "mnk":
        grown = {**samples, name: samples[name] * 2}
        assert np.min(predict_s(GEMM, fitted, grown, ROUND) / before) > 0.97


def test_scalar_is_vector(fitted: Curve) -> None:
    samples, _ = made_up(fitted.dtype, 400, key=5)
    whole = predict_s(GEMM, fitted, samples, ROUND)
    rows = zip(samples["m"], samples["n"], samples["k"], strict=True)
    single = [
        scalar_s(float(m), float(n), float(k), ROUND, fitted.dtype, fitted) for m, n, k in rows
    ]
    assert single == pytest.approx(whole, rel=1e-12)


def test_a_hundred_thousand_products_take_no_time(fitted: Curve) -> None:
    samples, _ = made_up(fitted.dtype, 100_000)
    begin = time.process_time()
    predict_s(GEMM, fitted, samples, ROUND)
    assert time.process_time() - begin < 0.5


def test_a_chip_without_a_narrow_type_runs_the_next_wider_one() -> None:
    assert peak_flop_per_s(ROUND, "nvfp4") == 4e15
    assert peak_flop_per_s(ROUND, "fp8_block128") == 2e15
    assert isfinite(one(128, 128, 128, "int8_weight_only"))


def test_a_chip_without_any_fitting_peak_is_named() -> None:
    poor = replace(ROUND, peak_flop_per_s={"int4": 1.0})
    with pytest.raises(KeyError, match="round states no peak for fp32"):
        peak_flop_per_s(poor, "fp32")
