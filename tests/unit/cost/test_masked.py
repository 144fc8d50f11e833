"""Dispatch by one-hot masks: FLOP, bytes and lanes by hand, and where it needs slots."""

from dataclasses import replace

import pytest

from moesim.cost.kernels import roofline_s
from moesim.cost.masked import laid_out, with_masks
from moesim.model.architecture import GroupedQueryAttention, Layer, MoeFfn
from moesim.model.layers import layer_operators
from moesim.model.one_hot import MaskProduct, mask_backward
from moesim.model.operators import (
    Compute,
    Operator,
    flop,
    read_bytes,
    saved_bytes,
    state_bytes,
    written_bytes,
)
from moesim.model.shapes import Shape, Shard
from moesim.moe.assignment import LayerLoad
from tests.unit.cost.machines import IDEAL, ROUND

FFN = MoeFfn(num_experts=128, top_k=1, expert_width=3072)
LOAD = LayerLoad(
    fullest_rows=(80,) * 8, rank_rows=(640,) * 16, mean_rows=640.0, assignments=2048 * 16,
    routed=2048 * 16, computed=2048 * 16, dropped=0, padded_slots=10, group_tokens=1024,
    copies=1.25, expert_imbalance=1.0, rank_imbalance=1.0,
)  # fmt: skip
"""Switch-Base at factor 1.25: 10 slots for a group of 1,024 over 128 experts; 2 groups a rank."""
MASK, TOKENS, SLOTS = 2 * 1024 * 128 * 10, 2 * 1024 * 768, 2 * 128 * 10 * 768


def _operators(ffn: MoeFfn) -> list[MaskProduct]:
    """All products with masks of a layer, with what stands between them left out."""
    return [one for one in _layer(ffn) if isinstance(one, MaskProduct)]


def _layer(ffn: MoeFfn) -> list[Operator]:
    layer = Layer(attention=GroupedQueryAttention(heads=12, kv_heads=12, head_dim=64), ffn=ffn)
    shape = Shape(sequences=4, length=512)
    plain = layer_operators(layer, 768, shape, Shard(ep=16), rows=LOAD.fullest_rows, copies=1.25)
    return with_masks(plain, ffn, LOAD, 2048, 768, "bf16")


def _masked() -> dict[str, MaskProduct]:
    found = _layer(FFN)
    names = [one.name for one in found]
    assert not {"permute", "unpermute"} & set(names)
    assert names.index("pick_tokens") < names.index("dispatch") < names.index("put_back")
    return {one.name: one for one in found if isinstance(one, MaskProduct)}


def _moved(one: Compute) -> tuple[float, float]:
    return read_bytes(one), written_bytes(one)


def test_forward_by_hand() -> None:
    """2 S E C d FLOP a group; masks are written once each, rows and slots move in bf16."""
    found = _masked()
    assert flop(found["pick_tokens"]) == flop(found["put_back"]) == 2 * MASK * 768
    assert flop(found["build_masks"]) == 0
    assert _moved(found["build_masks"]) == (0, 2 * 2 * MASK)
    assert _moved(found["pick_tokens"]) == (2 * (MASK + TOKENS), 2 * SLOTS)
    assert _moved(found["put_back"]) == (2 * (MASK + SLOTS), 2 * TOKENS)
    assert state_bytes(found["build_masks"]) == 2 * 2 * MASK
    assert saved_bytes(found["pick_tokens"]) == 0
    assert saved_bytes(found["put_back"]) == 2 * SLOTS


def test_places_are_counted_once_per_choice() -> None:
    """2 groups of 1,024 tokens: 2 S S E FLOP each, a mask of S E values read and one written."""
    found = _masked()["count_places"]
    assert flop(found) == 2 * 2 * 1024 * 1024 * 128
    assert _moved(found) == (2 * 2 * 1024 * 128, 2 * 2 * 1024 * 128)
    assert saved_bytes(found) == state_bytes(found) == 0
    assert mask_backward(found) == ()
    assert found.count == 1
    twice = next(one for one in _operators(replace(FFN, top_k=2)) if one.name == "count_places")
    assert flop(twice) == 2 * flop(found)


def test_only_the_mask_of_combine_has_a_gradient() -> None:
    """Three products backward for two forward; the gradient is read once more and folded."""
    found = _masked()
    (back,) = mask_backward(found["pick_tokens"])
    assert _moved(back) == (2 * (MASK + SLOTS), 2 * TOKENS)
    slots, mask = mask_backward(found["put_back"])
    assert flop(back) == flop(slots) == flop(mask) == 2 * MASK * 768
    assert _moved(slots) == (2 * (MASK + TOKENS), 2 * SLOTS)
    assert _moved(mask) == (2 * (TOKENS + SLOTS), 2 * MASK)
    (fold,) = mask_backward(found["build_masks"])
    assert _moved(fold) == (2 * MASK, 0)
    assert flop(fold) == 0


def test_slots_fill_whole_lanes_on_a_tpu() -> None:
    """10 slots lie in 128 lanes: 12.8 times the steps; a GPU packs them."""
    tpu = replace(ROUND, matrix_unit=128, memory_bandwidth_bytes_per_s=1e30)
    pick = _masked()["pick_tokens"]
    assert roofline_s(pick, tpu, IDEAL) == pytest.approx(12.8 * 2 * MASK * 768 / 1e15)
    assert laid_out(pick, ROUND) == pick
    even = replace(pick, slots=256)
    assert flop(laid_out(even, tpu)) == flop(even)


def test_a_group_over_several_ranks_has_a_part_of_its_mask_on_each() -> None:
    found = with_masks([], FFN, replace(LOAD, group_tokens=8192), 2048, 768, "bf16")
    assert found == []
    layer = Layer(attention=GroupedQueryAttention(heads=12, kv_heads=12, head_dim=64), ffn=FFN)
    plain = layer_operators(layer, 768, Shape(sequences=4, length=512), Shard(ep=16), rows=(640,))
    wide = replace(LOAD, group_tokens=8192, padded_slots=80)
    masks = [one for one in with_masks(plain, FFN, wide, 2048, 768, "bf16")
             if isinstance(one, MaskProduct)]  # fmt: skip
    assert {(one.groups, one.tokens, one.slots) for one in masks} == {(1, 2048, 80)}
