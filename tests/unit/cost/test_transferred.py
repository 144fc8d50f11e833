"""The uncertainty of lent curves by hand: near relatives, far ones, and other makers."""

from dataclasses import replace

import pytest

from moesim.cost.curves import Chip
from moesim.cost.transferred import octaves_apart, transferred_uncertainty

ONE = Chip(
    name="one", vendor="maker", peak_flop_per_s={"bf16": 1e15, "fp16": 1e15},
    memory_bandwidth_bytes_per_s=1e12, compute_units=100, l2_bytes=5e7,
)  # fmt: skip


def test_octaves_of_peak_and_bandwidth_add_up() -> None:
    other = replace(ONE, peak_flop_per_s={"bf16": 2e15}, memory_bandwidth_bytes_per_s=2.5e11)
    assert octaves_apart(ONE, other) == pytest.approx(1.0 + 2.0)
    assert octaves_apart(other, ONE) == octaves_apart(ONE, other)
    assert octaves_apart(ONE, ONE) == 0.0


def test_the_first_common_peak_counts() -> None:
    other = replace(ONE, peak_flop_per_s={"fp16": 4e15, "fp8": 9e15})
    assert octaves_apart(ONE, other) == pytest.approx(2.0)


def test_other_makers_and_peaks_lend_nothing() -> None:
    assert octaves_apart(ONE, replace(ONE, vendor="rival")) is None
    assert octaves_apart(ONE, replace(ONE, peak_flop_per_s={"fp32": 1e14})) is None


@pytest.mark.parametrize(
    ("fit", "octaves", "median"),
    [
        (0.04, 0.0, 0.05),  # 3-4-5
        (0.0, 0.0, 0.0316228),  # sqrt(0.01^2 + 0.03^2): no fit is better than 1 %
        (0.04, 1.2, 0.13),  # 5-12-13
        (0.04, 2.5, 0.254951),  # sqrt(0.05^2 + 0.25^2)
        (0.04, 9.0, 0.254951),
    ],
)
def test_errors_add_as_squares(fit: float, octaves: float, median: float) -> None:
    assert transferred_uncertainty(fit, octaves) == pytest.approx(1.48 * median, rel=1e-5)
