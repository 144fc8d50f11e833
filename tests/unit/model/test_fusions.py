"""Bytes per element of the passes between products, counted by hand for each code base."""

import pytest

from moesim.model.backward import backward
from moesim.model.fusions import Fusions, with_passes
from moesim.model.layers import norm
from moesim.model.operators import (
    AttentionCore,
    Gemm,
    Operator,
    Pointwise,
    read_bytes,
    state_bytes,
    written_bytes,
)
from moesim.model.shapes import Shape, Shard

TOKENS, WIDTH = 4, 10
ELEMENTS = TOKENS * WIDTH
NORM = norm("ffn_norm", WIDTH, Shape(sequences=1, length=TOKENS), Shard())


def pointwise(name: str, read: float, written: float) -> Pointwise:
    return Pointwise(
        name=name, module="mlp", input_from="mlp", rows=TOKENS, elements_read=read,
        elements_written=written, elements_saved=read, dtype="bf16",
    )  # fmt: skip


ROPE = pointwise("rope", ELEMENTS, ELEMENTS)
GATED = pointwise("ffn_activation", 2 * ELEMENTS, ELEMENTS)
PLAIN = pointwise("ffn_activation", ELEMENTS, ELEMENTS)


def per_element(operators: list[Operator]) -> float:
    moved = [
        read_bytes(one) + written_bytes(one) for one in operators if isinstance(one, Pointwise)
    ]
    return sum(moved) / ELEMENTS


def both_ways(operator: Operator, fusions: Fusions) -> tuple[float, float]:
    found = with_passes([operator], fusions)
    return per_element(found), per_element([grad for one in found for grad in backward(one)])


@pytest.mark.parametrize(
    ("operator", "fusions", "forward", "back"),
    [
        # residual and norm at once: 2 arrays in, 2 out; back 3 in, 2 out
        (NORM, "full", 8, 10),
        # addition with mask 7, norm 4; norm 6 and its weights 4, sum 6, dropout 5, bias 2
        (NORM, "megatron_2021", 11, 6 + 4 + 6 + 5 + 2),
        (PLAIN, "megatron_2021", 4, 6 + 2),
        (NORM, "llm_foundry", 6 + 4, 6 + 4 + 6),
        # sum 6; cast 6, square 8, mean 4, divide 8, cast 6, weight 4
        # weight 4 + 6 + 2, cast 6, divide 8 + 12 + 4, square 8 * 3, sum 12, cast 6, sum 6
        (NORM, "olmo", 6 + 36, 12 + 6 + 24 + 24 + 12 + 6 + 6),
        (NORM, "transformers", 42, 90),
        (GATED, "transformers", 4 + 6, 6 * 3),
        (GATED, "olmo", 4 + 6, 6 * 3 + 8),
        # fp32: cast 6, minus half 4, join 8, sine 8, cosine 8, sum 12, cast 6; back alike
        (ROPE, "olmo", 52, 52),
        # 16 bits: half of 4 + 8 + 8 + 8 + 12; back 4 + 4 + 2, zeros 2 and halves 2 twice, sums
        (ROPE, "transformers", 20, 4 + 4 + 2 + 2 * (2 + 2) + 6 + 6),
        (PLAIN, "olmo", 4, 6),
    ],
)
def test_bytes_per_element_by_hand(
    operator: Operator, fusions: Fusions, forward: float, back: float
) -> None:
    assert both_ways(operator, fusions) == pytest.approx((forward, back))


def test_learned_positions_have_no_rope() -> None:
    assert with_passes([ROPE], "llm_foundry") == []


def test_the_bias_of_the_projection_takes_its_width() -> None:
    """q, k and v are 3 widths: 4 bytes forward for each, 2 backward; in the place of rope."""
    qkv = Gemm(
        name="qkv_projection", module="qkv", input_from="layernorm", m=TOKENS, n=3 * WIDTH,
        k=WIDTH, dtype="bf16",
    )  # fmt: skip
    bias = with_passes([qkv, ROPE], "megatron_2021")[1]
    assert per_element([bias]) == pytest.approx(3 * 4)
    assert per_element(list(backward(bias))) == pytest.approx(3 * 2)


@pytest.mark.parametrize(("fused", "copies"), [(False, 1), (True, 0)])
def test_the_context_is_copied_where_scores_went_through_memory(fused: bool, copies: int) -> None:
    core = AttentionCore(
        name="attention", module="core_attn", input_from="qkv", sequences=1, queries=TOKENS,
        keys=TOKENS, own_keys=TOKENS, pairs=10.0, heads=2, kv_heads=2, qk_dim=5, v_dim=5,
        dtype="bf16", fused=fused,
    )  # fmt: skip
    after = with_passes([core], "megatron_2021")[1:]
    assert per_element(after) == pytest.approx(4 * copies)
    assert [grad for one in after for grad in backward(one)] == []


@pytest.mark.parametrize(
    ("fusions", "left"), [("full", 0), ("megatron_2021", 1), ("llm_foundry", 0), ("olmo", 4)]
)
def test_masks_and_copies_stay_for_the_backward_pass(fusions: Fusions, left: float) -> None:
    """A mask of 1 byte; fp32 copy and quotient are 6 bytes, 2 of them counted as input."""
    (found,) = with_passes([NORM], fusions)
    assert isinstance(found, Pointwise)
    assert state_bytes(found) / ELEMENTS == pytest.approx(left)


def test_launches_are_counted_forward_and_backward() -> None:
    (found,) = with_passes([NORM], "megatron_2021")
    assert isinstance(found, Pointwise)
    assert found.launches == (2, 5)
    (back,) = backward(found)
    assert isinstance(back, Pointwise)
    assert back.launches == (5, 2)
