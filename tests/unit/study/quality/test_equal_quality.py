"""Time to equal quality by hand, matches from laws, and students and weights at their edges."""

import pytest

from moesim.errors import ModelError
from moesim.model.named import load_named
from moesim.model.parameters import total_params
from moesim.study.quality.distillation import compression_fraction, gain_kept_fraction
from moesim.study.quality.equal_quality import (
    ANCHORS,
    clark2022_match,
    device_years,
    krajewski2024_match,
    stated,
    time_to_equal_quality,
    training_days,
)
from moesim.study.quality.scaling_laws import (
    clark2022_multiplier,
    krajewski2024,
    krajewski2024_dense,
)
from moesim.study.quality.weights import (
    WeightBits,
    compression_rate,
    devices_needed,
    routed_experts,
    weight_bytes,
)


def test_days_by_hand() -> None:
    # 86,400 tokens at 1 token/s are a day; the dense network takes 3 * 86,400 tokens at 2 a second
    found = time_to_equal_quality(stated(3.0), 86_400, moe_tokens_per_s=1, dense_tokens_per_s=2)
    assert (found.moe_days, found.dense_days, found.speed_up) == (1.0, 1.5, 1.5)
    assert found.match.kind == "assumed"
    assert training_days(2 * 86_400, 4) == 0.5
    assert device_years(365, 2.0) == 2.0


def test_anchors_name_their_source() -> None:
    for match in ANCHORS.values():
        assert match.kind == "measured"
        assert match.source
        assert match.params_ratio >= 1
        assert match.token_ratio >= 1


def test_match_by_clark2022_is_a_larger_network_on_as_many_tokens() -> None:
    found = clark2022_match(1e9, 64)
    assert found.params_ratio == clark2022_multiplier(1e9, 64)
    assert (found.token_ratio, found.kind) == (1.0, "fitted")
    with pytest.raises(ModelError, match="extrapolation"):
        clark2022_match(7e9, 64)
    assert clark2022_match(7e9, 64, extrapolate=True).params_ratio > 1


def test_match_by_krajewski2024_makes_losses_equal() -> None:
    found = krajewski2024_match(1.2e9, 1.2e9, 20e9, 2)
    expected = krajewski2024(1.2e9, 20e9, 2)
    assert krajewski2024_dense(1.2e9, found.token_ratio * 20e9) == pytest.approx(expected)
    assert found.params_ratio == 1.0


def test_a_dense_network_that_is_too_small_never_gets_there() -> None:
    with pytest.raises(ModelError, match="no number of tokens"):
        krajewski2024_match(1e6, 640e6, 130e9, 16)


def test_a_dense_training_far_beyond_the_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="krajewski2024 was fitted elsewhere"):
        krajewski2024_match(100e6, 4.3e9, 100e9, 8)
    far = krajewski2024_match(100e6, 4.3e9, 100e9, 8, extrapolate=True)
    assert far.token_ratio * 100e9 > 390e9


def test_students_at_their_edges() -> None:
    assert gain_kept_fraction(2.0, 1.0, 1.0) == 0
    assert gain_kept_fraction(2.0, 1.0, 2.0) == 1
    assert compression_fraction(1.0, 4.0) == 0.75
    with pytest.raises(ValueError, match="no better"):
        gain_kept_fraction(1.0, 1.0, 1.5)


def test_weights_at_their_edges() -> None:
    mixtral, dense = load_named("mixtral-8x7b"), load_named("llama-3.1-8b")
    half = WeightBits(experts=8, others=8)
    assert weight_bytes(mixtral, half) == total_params(mixtral)
    assert compression_rate(mixtral, half) == 2.0
    assert routed_experts(mixtral) == 8 * 32
    assert weight_bytes(mixtral, half, kept_experts=256) == weight_bytes(mixtral, half)
    few, none = (weight_bytes(mixtral, half, kept_experts=n) for n in (128, 0))
    assert few == pytest.approx((weight_bytes(mixtral, half) + none) / 2)
    assert routed_experts(dense) == 0
    assert weight_bytes(dense, half, kept_experts=0) == total_params(dense)
    with pytest.raises(ValueError, match="between 0 and 256"):
        weight_bytes(mixtral, half, kept_experts=257)
    assert [devices_needed(b, 10.0) for b in (1.0, 10.0, 10.1)] == [1, 1, 2]
