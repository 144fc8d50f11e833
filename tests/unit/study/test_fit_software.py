"""The choice of host constants on made-up cases whose answer is known."""

import numpy as np
import pytest

from moesim.study.validate.fit_software import PER_KERNEL_S, SYNC_S, Seen, fit_software

ROW, COLUMN = 3, 4


def case(model: str, right: tuple[int, int]) -> Seen:
    """Return a case that is predicted exactly at `right` and worse with the distance from it."""
    rows, columns = np.indices((len(PER_KERNEL_S), len(SYNC_S)))
    off = np.abs(rows - right[0]) + np.abs(columns - right[1])
    return Seen("c", model, np.log1p(0.1 * off))


def test_constants_that_all_cases_share_are_found() -> None:
    fitted = fit_software([case(model, (ROW, COLUMN)) for model in "aabc"])
    assert (fitted.per_kernel_s, fitted.sync_s) == (PER_KERNEL_S[ROW], SYNC_S[COLUMN])
    assert fitted.median_before == pytest.approx(0.1 * (ROW + COLUMN))
    assert fitted.median_after == pytest.approx(0.0)
    assert fitted.median_left_out == pytest.approx(0.0)


def test_a_model_that_is_left_out_has_no_say() -> None:
    """Model b wants something else: alone it gets what a wants, and is off by one step of 10 %."""
    fitted = fit_software([*[case("a", (ROW, COLUMN))] * 3, case("b", (ROW + 1, COLUMN))])
    left = {one.model: one for one in fitted.left_out}
    assert left["b"].per_kernel_s == PER_KERNEL_S[ROW]
    assert left["b"].median_error == pytest.approx(0.1)
    assert left["a"].per_kernel_s == PER_KERNEL_S[ROW + 1]
    assert left["a"].cases == 3
