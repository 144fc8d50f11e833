"""What ranks that share a sequence send each other, by hand."""

import pytest

from moesim.model.architecture import (
    AttentionKind,
    DenseFfn,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
)
from moesim.model.backward import backward
from moesim.model.flop import whole_layer
from moesim.model.layers import layer_operators
from moesim.model.operators import AttentionCore, Collective, Operator, flop
from moesim.model.shapes import Shape, Shard

GQA = GroupedQueryAttention(heads=32, kv_heads=8, head_dim=128)
SHAPE = Shape(sequences=1, length=4096)


def _found(shard: Shard, attention: AttentionKind = GQA) -> list[Operator]:
    return layer_operators(Layer(attention=attention, ffn=DenseFfn(width=8192)), 4096, SHAPE, shard)


def _moved(found: list[Operator]) -> list[Collective]:
    return [op for op in found if isinstance(op, Collective) and op.group == "cp"]


def _core(found: list[Operator]) -> AttentionCore:
    return next(op for op in found if isinstance(op, AttentionCore))


def test_a_ring_hands_one_share_on_three_times() -> None:
    (ring,) = _moved(_found(Shard(cp=4, cp_comm="ring")))
    # 1,024 tokens, eight heads of 128 for keys and as many for values, two bytes each
    assert (ring.kind, ring.count, ring.payload_bytes) == ("send", 3, 1024 * 2 * 8 * 128 * 2)
    # backward: keys and values go round once more, and their gradients
    again, grads = backward(ring)
    assert again == ring
    assert isinstance(grads, Collective)
    assert (grads.kind, grads.count, grads.payload_bytes) == ("send", 3, ring.payload_bytes)


def test_all_to_all_spreads_heads() -> None:
    found = _found(Shard(cp=4, cp_comm="all_to_all"))
    heads, tokens = _moved(found)
    # 1,024 tokens of 32 query and 2 x 8 key and value heads in, 32 heads of results out
    assert heads.payload_bytes == 1024 * (32 + 16) * 128 * 2
    assert tokens.payload_bytes == 1024 * 32 * 128 * 2
    core = _core(found)
    assert (core.queries, core.keys, core.own_keys, core.heads, core.kv_heads) == (
        4096, 4096, 4096, 8, 2,
    )  # fmt: skip
    assert core.pairs == 4096 * 4097 / 2
    (grad,) = backward(heads)
    assert isinstance(grad, Collective)
    assert grad.payload_bytes == heads.payload_bytes


def test_fewer_key_heads_than_ranks_are_sent_to_several() -> None:
    few = GroupedQueryAttention(heads=32, kv_heads=2, head_dim=128)
    found = _found(Shard(cp=8, cp_comm="all_to_all"), few)
    # each of eight ranks needs one key and one value head: 8 + 8 of them leave a rank
    assert _moved(found)[0].payload_bytes == 512 * (32 + 16) * 128 * 2
    assert (_core(found).heads, _core(found).kv_heads) == (4, 1)


@pytest.mark.parametrize("comm", ["ring", "all_gather", "all_to_all"])
def test_a_rank_computes_its_share_whatever_moves(comm: str) -> None:
    shard = Shard(cp=4, cp_comm=comm)  # type: ignore[arg-type]
    layer = Layer(attention=GQA, ffn=DenseFfn(width=8192))
    whole = sum(flop(op) for op in whole_layer(layer, 4096, SHAPE))
    assert sum(flop(op) for op in _found(shard)) == pytest.approx(whole / 4, rel=1e-12)


def test_what_sees_a_window_gathers() -> None:
    near = GroupedQueryAttention(heads=32, kv_heads=8, head_dim=128, window=1024)
    (moved,) = _moved(_found(Shard(cp=4, cp_comm="ring"), near))
    assert moved.kind == "all_gather"


def test_latent_attention_sends_what_it_expands() -> None:
    mla = LatentAttention(
        heads=16, q_lora_rank=None, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
        v_head_dim=128,
    )  # fmt: skip
    (ring,) = _moved(_found(Shard(cp=2, cp_comm="ring"), mla))
    assert ring.payload_bytes == 2048 * 16 * (192 + 128) * 2
    heads, _ = _moved(_found(Shard(cp=2, cp_comm="all_to_all"), mla))
    assert heads.payload_bytes == 2048 * 16 * (192 + 192 + 128) * 2
