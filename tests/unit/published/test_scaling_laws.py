"""The published scaling laws of MoE models: their tables, their claims, and where claims part."""

from math import log10

import pytest

from moesim.study.quality.compute_optimal import dense_compute_ratio, moe_optimum
from moesim.study.quality.equal_quality import ANCHORS, clark2022_match
from moesim.study.quality.scaling_laws import (
    CLARK2022_FITS,
    KRAJEWSKI2024_DENSE,
    KRAJEWSKI2024_MOE,
    ClarkFit,
    KrajewskiFit,
    clark2022,
    clark2022_cutoff_params,
    clark2022_dense,
    clark2022_multiplier,
    krajewski2024,
    krajewski2024_dense,
)


def test_coefficients_of_clark2022() -> None:
    """Clark et al. 2022 (arXiv 2202.01169), Table 3."""
    assert dict(CLARK2022_FITS) == {
        "s_base": ClarkFit(a=-0.082, b=-0.108, c=0.009, d=1.104, e_start=1.847, e_max=314.478),
        "rl_r": ClarkFit(a=-0.083, b=-0.126, c=0.012, d=1.111, e_start=1.880, e_max=469.982),
        "hash": ClarkFit(a=-0.087, b=-0.136, c=0.012, d=1.157, e_start=4.175, e_max=477.741),
    }


@pytest.mark.parametrize(
    ("experts", "printed"),
    [  # at 15M, 130M, 1.3B, 7B and 70B active parameters; the last two are extrapolations
        (8, [2.32, 1.97, 1.65, 1.46, 1.22]),
        (64, [6.29, 4.40, 3.00, 2.27, 1.55]),
        (128, [8.40, 5.55, 3.57, 2.59, 1.66]),
    ],
)
def test_effective_parameter_multiplier_of_s_base(experts: int, printed: list[float]) -> None:
    sizes = (15e6, 130e6, 1.3e9, 7e9, 70e9)
    found = [clark2022_multiplier(size, experts, extrapolate=True) for size in sizes]
    assert found == pytest.approx(printed, abs=5.1e-3)


def test_five_million_parameters_with_128_experts() -> None:
    """As good as 51.8M dense ones by the rounded coefficients; the paper says "about 55M"."""
    found = 5e6 * clark2022_multiplier(5e6, 128)
    assert found == pytest.approx(51.8e6, abs=0.05e6)
    assert found == pytest.approx(55e6, rel=0.06)


def test_clark2022_by_hand() -> None:
    """One expert of S-BASE: Eh = E_start, so log10 L = a n + b e + c n e + d, e = log10 1.847."""
    e, n = log10(1.847), 8.0
    expected = 10 ** (-0.082 * n - 0.108 * e + 0.009 * n * e + 1.104)
    assert clark2022(1e8, 1) == pytest.approx(expected, rel=1e-12)
    assert clark2022_dense(1e8) == pytest.approx((3.568e13 / 1e8) ** 0.078)
    # two fits of the same runs: the MoE law at one expert, and the dense one, within 2 %
    for size in (15e6, 130e6, 1.3e9):
        assert clark2022(size, 1) == pytest.approx(clark2022_dense(size), rel=0.02)


@pytest.mark.parametrize(
    ("router", "printed_params"), [("s_base", 937e9), ("rl_r", 85e9), ("hash", 83e9)]
)
def test_where_experts_stop_helping(router: str, printed_params: float) -> None:
    """Printed: 937B, 85B and 83B. From the printed coefficients: 1,000B, 32B and 215B.

    c has one digit that counts, so that 10^(-b / c) holds within a factor of five only: what is
    printed lies between the ends of what rounds to the printed coefficients.
    """
    fit = CLARK2022_FITS[router]
    half = 5e-4
    ends = [10 ** ((-fit.b + off) / (fit.c - off)) for off in (-half, half)]
    assert ends[0] < printed_params < ends[1]
    assert ends[0] < clark2022_cutoff_params(router) < ends[1]
    follows = {"s_base": 1000e9, "rl_r": 31.6e9, "hash": 215e9}[router]
    assert clark2022_cutoff_params(router) == pytest.approx(follows, rel=0.01)


def test_coefficients_of_krajewski2024() -> None:
    """Krajewski et al. 2024 (arXiv 2402.07871), Table 1."""
    moe = KrajewskiFit(a=18.1, alpha=0.115, b=30.8, beta=0.147, g=2.1, gamma=0.58, c=0.47)
    assert moe == KRAJEWSKI2024_MOE
    assert KrajewskiFit(a=16.3, alpha=0.126, b=26.7, beta=0.127, c=0.47) == KRAJEWSKI2024_DENSE


def test_krajewski2024_by_hand() -> None:
    """Eq. 9 at powers of ten and G = 1: 0.47 + 20.2 / 10^(9 * 0.115) + 30.8 / 10^(11 * 0.147)."""
    expected = 0.47 + 20.2 * 10**-1.035 + 30.8 * 10**-1.617
    assert krajewski2024(1e9, 1e11, 1) == pytest.approx(expected, rel=1e-12)
    finer = 0.47 + (2.1 * 16**-0.58 + 18.1) * 10**-1.035 + 30.8 * 10**-1.617
    assert krajewski2024(1e9, 1e11, 16) == pytest.approx(finer, rel=1e-12)
    dense = 0.47 + 16.3 * 10**-1.134 + 26.7 * 10**-1.397
    assert krajewski2024_dense(1e9, 1e11) == pytest.approx(dense, rel=1e-12)


def test_dense_compute_at_1e20_flop() -> None:
    """Printed: 20 times. From the printed law: 36 times (64 N_active in all), 24 times (43).

    The law leaves routing cost out, which the paper counts. The MoE of 1e20 FLOP has 35B
    parameters, beyond the 3.7B of the fit.
    """
    found = {
        ratio: dense_compute_ratio(1e20, 16, total_per_active=ratio, extrapolate=True)
        for ratio in (64, 43, 1)
    }
    assert found[64] == pytest.approx(36, abs=0.5)
    assert found[43] == pytest.approx(24, abs=0.5)
    assert found[1] == pytest.approx(0.5, abs=0.05)  # N read as active parameters: no MoE pays
    assert moe_optimum(1e20, 16, extrapolate=True).total_params == pytest.approx(35e9, rel=0.02)


def test_claims_of_krajewski2024() -> None:
    """More than 40 times beyond 1e25 FLOP; G = 1 is hardly ever best."""
    assert dense_compute_ratio(1e25, 16, extrapolate=True) > 40
    for flop in (1e18, 1e20, 1e22, 1e25):
        losses = [moe_optimum(flop, g, extrapolate=True).loss for g in (1, 2, 4, 8, 16)]
        assert min(losses) < losses[0]


@pytest.mark.parametrize(
    ("pair", "active", "printed_error"),
    [("deepspeed_350m", 350e6, 0.22), ("deepspeed_1.3b", 1.3e9, -0.31)],
)
def test_clark2022_against_deepspeeds_pairs(pair: str, active: float, printed_error: float) -> None:
    """Dense networks 3.7 and 5.2 times as large were as good; the law says 4.6 and 3.6 times."""
    found = clark2022_match(active, 128, tokens=300e9).params_ratio / ANCHORS[pair].params_ratio - 1
    assert found == pytest.approx(printed_error, abs=0.025)
