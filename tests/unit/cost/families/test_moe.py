"""Experts of one layer: rows per expert, padding, empty experts, and what the parts add up to."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.cost.curve_fit import fit_curve
from moesim.cost.curves import Array, Curve, Samples, predict_s
from moesim.cost.families.moe import (
    GROUPED_GEMM,
    MOE,
    ExpertShape,
    bound_s,
    expert_layer_s,
    grouped_gemm_s,
    layer_parts_s,
    layer_s,
    start,
)
from moesim.cost.families.moe_loads import (
    LOAD_COLUMNS,
    busy_experts,
    equal_loads,
    even_rows,
    summarise,
    with_loads,
)
from moesim.cost.sites import Sites
from tests.unit.cost.families.chips import ROUND

SHAPE = ExpertShape(hidden=4096, width=2048, num_experts=64, tokens=512)
IDEAL = {
    "layer_s": 1e-5,
    "select": 1.0,
    "shuffle": 1.0,
    "efficiency": 1.0,
    "tile_s": 1e-7,
    "feed_bytes_per_s": 1e30,
    "blend": 0.0,
    "memory_efficiency": 1.0,
    "l2_over_memory": 1.0,
    "sharpness": 2.0,
}


def curve(family: str = "moe", **changes: float) -> Curve:
    return Curve(
        family=family,
        dtype="bf16",
        variant="",
        parameters={**IDEAL, **changes},
        surface=None,
        rows=0,
        median_error=0.0,
        p90_error=0.0,
        source="test",
    )


def layers(rows: int, key: int = 1) -> Samples:
    generator = np.random.Generator(np.random.Philox(key=key))

    def among(*values: float) -> Array:
        return generator.choice(np.array(values), rows)

    return with_loads({
        "hidden_size": among(2048, 4096, 7168),
        "expert_ffn_size": among(1024, 2048, 4096),
        "tp_size": among(1, 2, 4),
        "gated": among(1),
        "num_experts": among(64, 128, 256),
        "top_k": among(4, 8),
        "ep_size": among(1, 2, 8),
        "num_tokens": np.floor(np.exp2(generator.uniform(0, 14, rows))),
        "routing": np.zeros(rows),
    })  # fmt: skip


def test_summary_of_a_vector_of_rows() -> None:
    found = summarise([0, 1, 16, 17, 130])
    assert found["routed"] == 164 and found["active"] == 4
    assert (found["blocks_16"], found["blocks_64"], found["blocks_128"]) == (1 + 1 + 2 + 9, 6, 5)


def test_empty_experts_cost_nothing() -> None:
    few, many = [100.0, 100.0], [100.0, 0.0, 0.0, 100.0, 0.0]
    assert grouped_gemm_s(few, 4096, 4096, ROUND, curve()) == grouped_gemm_s(
        many, 4096, 4096, ROUND, curve()
    )
    assert grouped_gemm_s([0.0, 0.0], 4096, 4096, ROUND, curve()) == 0.0


def test_one_expert_with_one_wave_of_tiles() -> None:
    # 128 rows x 12800 columns: 100 tiles of 128 x 128 on 100 units, one wave
    n, k = 12800, 65536
    compute = 2 * 128 * 128 * k / 1e13 + 1e-7
    traffic = (128 * k * 2 + 128 * n * 2 + n * k * 2) / 2e12
    expected = (compute**3 + traffic**3) ** (1 / 3)
    assert grouped_gemm_s([128.0], n, k, ROUND, curve()) == pytest.approx(expected)


def test_rows_are_padded_to_whole_tiles_per_expert() -> None:
    # weights apart, 64 experts of 129 rows cost what 64 of 256 do, far from memory
    k = 2**18
    narrow = grouped_gemm_s([129.0] * 64, 12800, k, ROUND, curve())
    wide = grouped_gemm_s([192.0] * 64, 12800, k, ROUND, curve())
    assert narrow == pytest.approx(wide, rel=0.02)


def test_few_rows_stream_the_weights_of_active_experts() -> None:
    seconds = grouped_gemm_s([1.0] * 64, 4096, 4096, ROUND, curve(tile_s=1e-12))
    assert seconds == pytest.approx(64 * 4096 * 4096 * 2 / 2e12, rel=0.1)


def test_large_loads_run_at_the_peak() -> None:
    rows = [12800.0] * 8
    flop_s = 2 * sum(rows) * 8192 * 8192 / 1e15
    assert grouped_gemm_s(rows, 8192, 8192, ROUND, curve()) == pytest.approx(flop_s, rel=0.05)


def test_parts_add_up_to_the_layer() -> None:
    rows = [64.0] * 64
    parts = layer_parts_s([rows], SHAPE, ROUND, curve())
    total = parts.fixed_s + parts.up_s + parts.activation_s + parts.down_s + parts.shuffle_s
    assert total == pytest.approx(layer_s(rows, SHAPE, ROUND, curve()))
    assert parts.up_s == pytest.approx(grouped_gemm_s(rows, 4096, 4096, ROUND, curve()))
    assert parts.down_s == pytest.approx(grouped_gemm_s(rows, 4096, 2048, ROUND, curve()))
    assert parts.fixed_s == pytest.approx(1e-5 + 512 * 64 * 4 / 2e12)


def test_several_draws_are_averaged() -> None:
    even, skewed = [64.0] * 64, [4096.0] + [0.0] * 63
    each = [layer_s(rows, SHAPE, ROUND, curve()) for rows in (even, skewed)]
    both = layer_parts_s([even, skewed], SHAPE, ROUND, curve())
    total = both.fixed_s + both.up_s + both.activation_s + both.down_s + both.shuffle_s
    assert total == pytest.approx(sum(each) / 2)


def test_an_idle_rank_still_launches() -> None:
    assert layer_s([0.0] * 8, SHAPE, ROUND, curve()) == pytest.approx(1e-5 + 512 * 64 * 4 / 2e12)


def test_ungated_experts_have_two_matrices() -> None:
    plain = ExpertShape(hidden=4096, width=2048, num_experts=64, tokens=512, gated=False)
    rows = [64.0] * 64
    gated_s = layer_parts_s([rows], SHAPE, ROUND, curve())
    plain_s = layer_parts_s([rows], plain, ROUND, curve())
    assert plain_s.up_s < 0.6 * gated_s.up_s and plain_s.down_s == pytest.approx(gated_s.down_s)


ROWS = st.lists(st.integers(0, 5000), min_size=1, max_size=40)


@given(rows=ROWS, more=st.integers(0, 39), by=st.integers(0, 3000))
@settings(max_examples=150, deadline=None)
def test_more_rows_never_take_less_time(rows: list[int], more: int, by: int) -> None:
    larger = list(rows)
    larger[more % len(rows)] += by
    product = [grouped_gemm_s(r, 2048, 4096, ROUND, curve()) for r in (rows, larger)]
    layer = [layer_s(r, SHAPE, ROUND, curve()) for r in (rows, larger)]
    assert product[1] >= product[0] * (1 - 1e-12) and layer[1] >= layer[0] * (1 - 1e-12)


@given(rows=ROWS)
@settings(max_examples=100, deadline=None)
def test_no_prediction_beats_peak_or_memory(rows: list[int]) -> None:
    fast = curve(layer_s=1e-12, tile_s=1e-12, efficiency=90.0, l2_over_memory=90.0, shuffle=1e9)
    weights, active = 3 * 4096 * 2048, sum(1 for r in rows if r)
    least = max(2 * sum(rows) * weights / 1e15, active * weights * 2 / 2e12)
    assert layer_s([float(r) for r in rows], SHAPE, ROUND, fast) >= least * (1 - 1e-12)


def test_even_rows_reach_few_experts_with_few_tokens() -> None:
    assert list(even_rows(4, 2, 64, 1)[:9]) == [1] * 8 + [0]
    assert list(even_rows(512, 8, 64, 8)) == [64] * 8
    assert list(even_rows(1, 2, 64, 32)) == [1, 0]
    assert even_rows(100, 8, 64, 4).sum() >= 200


def test_slots_beyond_the_experts_share_an_even_load() -> None:
    samples = {name: column[:1] for name, column in layers(1).items() if name not in LOAD_COLUMNS}
    samples.update(num_tokens=np.array([256.0]), top_k=np.array([8.0]), ep_size=np.array([8.0]))
    samples.update(num_experts=np.array([256.0]), num_expert_slots=np.array([512.0]))
    assert with_loads(samples)["active"][0] == 64 and with_loads(samples)["routed"][0] == 256


def test_loads_of_a_power_law_are_expected_ones() -> None:
    shape = {"num_tokens": 1.0, "top_k": 8.0, "num_experts": 256.0, "ep_size": 8.0, "routing": 1.2}
    samples = {name: np.array([value, value]) for name, value in shape.items()}
    found = with_loads({**samples, "drawn_left_over": np.array([0.0, 1.0])})
    assert list(found["active"]) == [1, 8] and list(found["routed"]) == [1, 8]
    samples["num_tokens"] = np.array([4096.0, 4096.0])
    placed = {"drawn_slots": np.array([0.0, 256.0]), "drawn_exponent": samples["routing"]}
    found = with_loads({**samples, **placed})
    # EPLB with 32 experts a rank: all but even, where the busiest of 8 contiguous ranks is not
    assert found["routed"][0] > 1.2 * 4096 and found["routed"][1] == pytest.approx(4096, rel=0.02)


@pytest.mark.parametrize("dtype", ["bf16", "fp8_block128", "nvfp4", "w4a16_mxfp4"])
def test_any_layer_has_a_time(dtype: str) -> None:
    with np.errstate(all="raise"):
        seconds = expert_layer_s(layers(300), ROUND, dtype, start(ROUND, dtype))
    assert np.all(np.isfinite(seconds))
    assert np.all(np.isfinite(bound_s(layers(300), ROUND, dtype)))


def test_a_fit_finds_its_way_back() -> None:
    truth = {**start(ROUND, "bf16"), "layer_s": 3e-5, "efficiency": 0.6, "memory_efficiency": 0.9}
    samples = layers(1500)
    noise = np.exp(np.random.Generator(np.random.Philox(key=4)).normal(0, 0.01, 1500))
    found = fit_curve(
        MOE, samples, expert_layer_s(samples, ROUND, "bf16", truth) * noise, ROUND, "bf16"
    )
    unseen = layers(300, key=9)
    true_s = expert_layer_s(unseen, ROUND, "bf16", truth)
    error = np.abs(predict_s(MOE, found, unseen, ROUND) / true_s - 1)
    assert np.median(error) < 0.02 and np.quantile(error, 0.9) < 0.05
    assert found.parameters["layer_s"] == pytest.approx(3e-5, rel=0.3)
    # the same curve prices a vector of rows and a product apart
    whole = layer_s([64.0] * 64, SHAPE, ROUND, found)
    up = grouped_gemm_s([64.0] * 64, 4096, 4096, ROUND, found)
    assert 0 < up < whole


def test_grouped_products_fit_alone() -> None:
    generator = np.random.Generator(np.random.Philox(key=6))
    loads = [summarise([float(r)] * 8) for r in generator.integers(1, 2000, 400)]
    samples: dict[str, Array] = {n: np.array([load[n] for load in loads]) for n in LOAD_COLUMNS}
    samples["n"] = np.exp2(generator.integers(9, 14, 400)).astype(float)
    samples["k"] = np.exp2(generator.integers(9, 14, 400)).astype(float)
    truth = {**GROUPED_GEMM.start(ROUND, "bf16"), "launch_s": 8e-6}
    seconds = GROUPED_GEMM.physics(samples, ROUND, "bf16", truth)
    found = fit_curve(GROUPED_GEMM, samples, seconds, ROUND, "bf16")
    assert found.parameters["launch_s"] == pytest.approx(8e-6, rel=0.1)
    assert grouped_gemm_s([50.0] * 8, 2048, 1024, ROUND, found) > 8e-6


def test_equal_experts_are_all_busy_and_idle_ones_hardly_count() -> None:
    loads = [summarise(rows) for rows in ([50] * 8, [50] * 8 + [0] * 56, [10000, 1], [9, 4, 1])]
    columns = {name: np.array([load[name] for load in loads]) for name in LOAD_COLUMNS}
    # (100 + 1)^2 / 10001, (3 + 2 + 1)^2 / 14
    assert busy_experts(columns) == pytest.approx([8, 8, 101**2 / 10001, 36 / 14])


def test_equal_loads_are_those_of_a_vector() -> None:
    found = equal_loads(np.array([6.0]), np.array([130.0]))
    assert {name: float(column[0]) for name, column in found.items()} == pytest.approx(
        summarise([130.0] * 6)
    )


SITES = Sites(
    names=("hidden", "width", "experts", "top_k"), reach=(2.0, 4.0, 1.0, 1.0), knots=(0.0, 20.0),
    places=((12.0, 11.0, 6.0, 3.0),), values=(0.2, 0.2),
)  # fmt: skip


def test_a_layer_at_its_site_takes_what_the_site_says_in_all_its_parts() -> None:
    shape = replace(SHAPE, top_k=8)
    rows = [[512.0] * 64]
    plain, there = (
        layer_parts_s(rows, shape, ROUND, c) for c in (curve(), replace(curve(), sites=SITES))
    )
    for name in ("fixed_s", "up_s", "activation_s", "down_s", "shuffle_s"):
        assert getattr(there, name) == pytest.approx(getattr(plain, name) * np.exp(0.2))
    # two ranks hold half of the experts each: an octave away
    spread = replace(shape, ranks=2)
    assert layer_s(rows[0], spread, ROUND, replace(curve(), sites=SITES)) == pytest.approx(
        layer_s(rows[0], spread, ROUND, curve()) * np.exp(0.2 / np.e)
    )


def test_rows_for_each_token_stand_for_an_unknown_top_k() -> None:
    rows = [512.0 * 8 / 64] * 64
    known, unknown = (
        layer_s(rows, replace(SHAPE, top_k=top_k), ROUND, replace(curve(), sites=SITES))
        for top_k in (8, None)
    )
    assert known == unknown


def test_a_product_by_a_layer_curve_keeps_its_site() -> None:
    rows = [512.0] * 64
    plain, there = (
        grouped_gemm_s(rows, 2048, 4096, ROUND, c) for c in (curve(), replace(curve(), sites=SITES))
    )
    assert there == pytest.approx(plain * np.exp(0.2))
