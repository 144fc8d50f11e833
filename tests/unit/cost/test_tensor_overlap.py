"""Tensor-parallel transfers beside products: by hand."""

import pytest

from moesim.cost.tensor_overlap import beside_products
from moesim.cost.times import Part
from moesim.model.backward import backward
from moesim.model.operators import Collective, Gemm, Operator, Pointwise

GATHER = Collective(
    name="tp_all_gather", module="tp", kind="all_gather", group="tp", payload_bytes=8.0
)
SCATTER = Collective(
    name="tp_reduce_scatter", module="tp", kind="reduce_scatter", group="tp", payload_bytes=8.0
)
CAST = Pointwise(
    name="qkv_cast", module="qkv", input_from="layernorm", rows=8.0, elements_read=8.0,
    elements_written=8.0, elements_saved=0.0, dtype="bf16",
)  # fmt: skip


def product(name: str) -> Gemm:
    return Gemm(name=name, module="qkv", input_from="layernorm", m=8, n=8, k=8, dtype="bf16")


def left(operators: list[Operator], seconds: list[float], rate: float, ranks: int) -> list[float]:
    parts = [
        Part("scale-up" if isinstance(one, Collective) else "compute", one.name, took)
        for one, took in zip(operators, seconds, strict=True)
    ]
    return [part.seconds for part in beside_products(operators, parts, rate, ranks)]


def test_a_gather_hides_behind_the_product_after_it() -> None:
    """3 s beside 4 s, also past a cast; of 9 s at half rate 2 s are done beside 4 s: 7 are left."""
    layer: list[Operator] = [GATHER, CAST, product("qkv")]
    assert left(layer, [3, 1, 4], 1.0, 4) == [0, 1, 4]
    assert left(layer, [9, 1, 4], 0.5, 4) == pytest.approx([7, 1, 4])


def test_the_last_piece_of_a_scatter_is_alone() -> None:
    """In 4 pieces: 2 s of products, 6 s with 3 s of scatter beside, 1 s of scatter: 9 for 8."""
    assert left([product("proj"), SCATTER], [8, 4], 1.0, 4) == pytest.approx([8, 1])


def test_backward_a_scatter_runs_beside_the_gradient_of_the_weights() -> None:
    """2 s behind 4 s of the second of two products; the gather of the other way before a dgrad."""
    grads: list[Operator] = [
        grad for one in (SCATTER, product("proj"), product("qkv"), GATHER) for grad in backward(one)
    ]
    names = [one.name for one in grads]
    assert names == ["tp_reduce_scatter_grad", "proj_dgrad", "proj_wgrad", "qkv_dgrad",
                     "qkv_wgrad", "tp_all_gather_grad"]  # fmt: skip
    assert left(grads, [2, 4, 4, 4, 4, 2], 1.0, 4) == pytest.approx([0, 4, 4, 4, 4, 0])


def test_a_product_has_room_for_one_transfer_and_sums_are_not_overlapped() -> None:
    total = Collective(
        name="tp_all_reduce", module="tp", kind="all_reduce", group="tp", payload_bytes=8.0
    )
    assert left([GATHER, GATHER, product("qkv")], [1, 1, 4], 1.0, 2) == [0, 1, 4]
    assert left([product("proj"), total], [4, 1], 1.0, 2) == [4, 1]
