import math

import pytest

from moesim.calibrate.device import Target
from moesim.calibrate.grid import candidates, grid
from moesim.calibrate.ranks import collective_grid
from moesim.calibrate.session import in_turn
from moesim.calibrate.suite import Case, case, columns
from tests.unit.calibrate.made_up import target

TARGETS = [
    target(),
    target(kind="cuda", name="NVIDIA H100", vendor="nvidia", dtypes=("bf16", "fp16", "fp32")),
    target(kind="mps", vendor="apple", dtypes=("fp16", "fp32")),
]


@pytest.mark.parametrize("on", TARGETS, ids=lambda on: str(on.kind))
def test_the_grid_covers_every_operator_once_per_shape(on: Target) -> None:
    base = grid(on, in_one_call=True)
    assert len(base) == len(set(base)) >= 40
    assert {one.operator for one in base} == {
        "gemm", "grouped_gemm", "attention", "elementwise", "launch",
    }  # fmt: skip
    assert {one.dtype for one in base if one.operator == "gemm"} == set(on.dtypes)
    assert any(one.variant == "graph" for one in base) == (on.kind == "cuda")
    assert any(one.variant == "host_to_device" for one in base) == (on.kind != "cpu")


def test_without_a_grouped_product_torch_loops() -> None:
    variants = {one.variant for one in grid(target(), in_one_call=False)}
    assert "loop" in variants
    assert not {"grouped_mm", "wgrad"} & variants


@pytest.mark.parametrize("on", TARGETS, ids=lambda on: str(on.kind))
def test_columns_are_positive_and_finite(on: Target) -> None:
    for one in [*grid(on, in_one_call=True), *candidates(grid(on, in_one_call=True), on, 4, 1)]:
        for name, value in columns(one).items():
            assert math.isfinite(value), (one, name)
            assert value > 0 or name == "causal", (one, name)


def test_candidates_lie_between_the_base_cases_and_differ_by_seed() -> None:
    base = grid(target(), in_one_call=True)
    drawn = candidates(base, target(), 8, 1)
    assert drawn == candidates(base, target(), 8, 1)
    assert drawn != candidates(base, target(), 8, 2)
    gemms = [one for one in drawn if one.curve == ("gemm", "fp32", "")]
    assert len(gemms) > 4
    assert all(1 <= one.sizes["m"] <= 1024 for one in gemms)
    grouped = [one.sizes for one in drawn if one.operator == "grouped_gemm"]
    assert all(size["rows"] >= size["experts"] for size in grouped)


def test_every_curve_has_its_first_case_before_any_has_its_third() -> None:
    order = [one.curve for one in in_turn(grid(target(), in_one_call=True))]
    curves = set(order)
    assert set(order[: len(curves)]) == curves


def test_a_key_tells_cases_apart() -> None:
    one = case("gemm", "", "fp32", m=4, n=8, k=16)
    assert one.key == case("gemm", "", "fp32", m=4, n=8, k=16).key
    assert one.key != case("gemm", "", "bf16", m=4, n=8, k=16).key
    assert one.text == "m=4 n=8 k=16"


def test_a_gemm_is_its_own_columns_and_a_norm_moves_four_times_its_elements() -> None:
    assert columns(case("gemm", "", "fp32", m=4, n=8, k=16)) == {"m": 4, "n": 8, "k": 16}
    norm = case("elementwise", "norm", "fp32", rows=10, width=100)
    assert columns(norm) == {"items": 10, "bytes": 4 * 10 * 100 * 4}
    assert columns(case("elementwise", "norm_grad", "fp32", rows=10, width=100)) == columns(norm)


def test_the_gradient_of_an_embedding_clears_the_whole_table() -> None:
    sizes = {"rows": 10, "width": 8, "vocab": 1000}
    forward = columns(case("elementwise", "embedding", "fp32", **sizes))["bytes"]
    back = columns(case("elementwise", "embedding_grad", "fp32", **sizes))["bytes"]
    assert back - forward == 1000 * 8 * 4


@pytest.mark.parametrize(
    ("variant", "skew", "share"),
    [("all_reduce", 1.0, 1.5), ("all_gather", 1.0, 0.75), ("all_to_all", 1.2, 0.9)],
)
def test_bytes_on_the_wire(variant: str, skew: float, share: float) -> None:
    one = case("collective", variant, "fp32", ranks=4, payload=1000, skew=skew)
    assert columns(one)["bytes"] == pytest.approx(share * 1000)


def test_collectives_include_an_uneven_all_to_all() -> None:
    found = collective_grid(target(processes=4))
    assert {one.variant for one in found} == {
        "all_reduce", "all_gather", "reduce_scatter", "all_to_all",
    }  # fmt: skip
    assert any(dict(one.shape)["skew"] > 1 for one in found)


def test_decode_has_one_query_and_no_mask() -> None:
    one = Case("attention", "decode", "fp32", tuple(
        (name, float(v)) for name, v in
        (("sequences", 2), ("length", 64), ("heads", 4), ("kv_heads", 2), ("head_dim", 32))
    ))  # fmt: skip
    assert columns(one)["queries"] == 1
    assert columns(one)["causal"] == 0
