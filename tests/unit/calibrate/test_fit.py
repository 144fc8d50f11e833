import numpy as np
import pytest

from moesim.calibrate.fit import doubt, fit, predict_one
from moesim.calibrate.grid import candidates, grid
from moesim.calibrate.samples import Sample
from moesim.calibrate.suite import case
from moesim.errors import CalibrationError
from tests.unit.calibrate.made_up import samples, seconds, target


@pytest.fixture(scope="module")
def base() -> list[Sample]:
    return samples()


def test_unseen_shapes_are_predicted_within_the_noise(base: list[Sample]) -> None:
    fitted = fit(target(), base)
    assert {sample.case.curve for sample in base} == set(fitted.curves)
    errors = np.abs([one.error for one in fitted.held_out])
    assert np.median(errors) < 0.03
    unseen = candidates(grid(target(), in_one_call=True), target(), 4, 5)
    beside = np.asarray([predict_one(fitted, one) / seconds(one) - 1 for one in unseen])
    assert np.median(np.abs(beside)) < 0.03


def test_the_same_samples_give_the_same_curves(base: list[Sample]) -> None:
    assert fit(target(), base) == fit(target(), base)


def test_peaks_are_the_best_that_was_observed(base: list[Sample]) -> None:
    chip = fit(target(), base, folds=0).chip
    assert set(chip.peak_flop_per_s) == {"fp32", "bf16"}
    assert 0.5e11 < chip.peak_flop_per_s["fp32"] < 1.1e11
    best = min(s.timing.seconds / (2 * np.prod([v for _, v in s.case.shape]))
               for s in base if s.case.operator == "gemm" and s.case.dtype == "fp32")  # fmt: skip
    assert chip.peak_flop_per_s["fp32"] == pytest.approx(1 / best)


def test_errors_are_at_least_the_spread_of_the_samples(base: list[Sample]) -> None:
    fitted = fit(target(), base)
    assert all(curve.median_error >= 0.01 for curve in fitted.curves.values())
    assert all(curve.p90_error >= curve.median_error for curve in fitted.curves.values())


def test_doubt_grows_outside_of_what_was_measured(base: list[Sample]) -> None:
    fitted = fit(target(), base)
    inside = doubt(fitted, case("gemm", "", "fp32", m=128, n=1024, k=1024))
    outside = doubt(fitted, case("gemm", "", "fp32", m=65536, n=16384, k=16384))
    assert outside > 4 * inside
    assert doubt(fitted, case("gemm", "", "fp16", m=1, n=1, k=1)) == 1.0


def test_what_was_not_measured_is_refused(base: list[Sample]) -> None:
    with pytest.raises(CalibrationError, match="nothing was measured for gemm"):
        predict_one(fit(target(), base, folds=0), case("gemm", "", "fp16", m=1, n=1, k=1))


def test_a_profile_needs_a_product_and_a_copy(base: list[Sample]) -> None:
    with pytest.raises(CalibrationError, match="goes on where it stopped"):
        fit(target(), [s for s in base if s.case.operator != "gemm"])
    with pytest.raises(CalibrationError, match="too little"):
        fit(target(), [s for s in base if s.case.variant != "copy"])


def test_host_times_count_where_calls_return_early(base: list[Sample]) -> None:
    assert fit(target(), base, folds=0).host_s == {}
    on = target(kind="cuda", vendor="nvidia")
    assert fit(on, base, folds=0).host_s[("elementwise", "norm")] > 0


def test_too_few_samples_ask_for_a_longer_budget() -> None:
    """The same budget is spent: run again with it, nothing more would be measured."""
    with pytest.raises(CalibrationError, match="a longer --budget"):
        fit(target(), [])
