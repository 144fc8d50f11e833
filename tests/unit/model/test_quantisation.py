"""Bytes of casts around one fp8 product, by hand."""

import pytest

from moesim.model.backward import backward
from moesim.model.operators import Gemm, Operator, Pointwise, read_bytes, written_bytes
from moesim.model.quantisation import Quantisation, Recipe, with_casts

M, N, K = 64, 48, 32
PRODUCT = Gemm(name="up", module="mlp", input_from="layernorm", m=M, n=N, k=K, dtype="fp8")


def casts(rule: Quantisation, product: Gemm = PRODUCT) -> list[Pointwise]:
    return [one for one in with_casts([product], rule) if isinstance(one, Pointwise)]


def moved(found: list[Operator] | list[Pointwise]) -> float:
    return sum(read_bytes(one) + written_bytes(one) for one in found if isinstance(one, Pointwise))


@pytest.mark.parametrize(
    ("recipe", "transposed", "per_value"),
    [
        ("delayed", False, 2 + 1),
        ("delayed", True, 2 + 1 + 1),
        ("tensorwise", False, 2 + 2 + 1),
        ("tensorwise", True, 2 + 2 + 1 + 1),
        ("mxfp8", False, 2 + 2 * (1 + 1 / 32)),
        ("blockwise", True, 2 + 2 * (1 + 4 / 128)),
    ],
)
def test_bytes_per_value_by_hand(recipe: Recipe, transposed: bool, per_value: float) -> None:
    """Forward the input of [64, 32], backward the gradient of [64, 48]."""
    rule = Quantisation(recipe, transposed)
    found = casts(rule)
    assert moved(found) == pytest.approx(per_value * M * K)
    assert moved([g for one in found for g in backward(one)]) == pytest.approx(per_value * M * N)
    assert rule.passes_bytes == pytest.approx(per_value)


def test_a_gathered_input_is_cast_before_it_travels() -> None:
    rule = Quantisation("delayed", transposed=False)
    gathered = Gemm(
        name="up", module="mlp", input_from="x", m=M, n=N, k=K, dtype="fp8", input_share=0.25
    )
    assert moved(casts(rule, gathered)) == 3 * M * K / 4


def test_wide_products_are_not_cast() -> None:
    wide = Gemm(name="router", module="router", input_from="x", m=M, n=N, k=K, dtype="bf16")
    assert with_casts([wide], Quantisation("mxfp8", transposed=False)) == [wide]
    assert with_casts([PRODUCT], None) == [PRODUCT]
