"""Operators of layers: FLOP, bytes and transfers by hand, whole and cut over ranks."""

from dataclasses import replace

import pytest

from moesim.model.architecture import (
    DenseFfn,
    FfnKind,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    LinearAttention,
    MoeFfn,
)
from moesim.model.backward import backward
from moesim.model.layers import layer_operators, logits_operators
from moesim.model.named import load_named
from moesim.model.operators import (
    AttentionCore,
    Collective,
    Compute,
    Exchange,
    Gemm,
    GroupedGemm,
    Operator,
    Pointwise,
    flop,
    read_bytes,
    written_bytes,
)
from moesim.model.shapes import Shape, Shard, causal_pairs

SEQUENCE = Shape(sequences=1, length=4096)
MIXTRAL = Layer(
    attention=GroupedQueryAttention(heads=32, kv_heads=8, head_dim=128),
    ffn=MoeFfn(num_experts=8, top_k=2, expert_width=14336),
)
MLA = LatentAttention(
    heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
    v_head_dim=128,
)  # fmt: skip


def _by_name(operators: list[Operator]) -> dict[str, Operator]:
    return {operator.name: operator for operator in operators}


def _collectives(operators: list[Operator], name: str) -> list[Collective]:
    return [op for op in operators if isinstance(op, Collective) and op.name == name]


def _total(operators: list[Operator]) -> float:
    return sum(flop(operator) for operator in operators)


def test_mixtral_layer_by_hand() -> None:
    """4096 tokens; a multiply-add is 2 FLOP.

    qkv: 4096 x (4096 + 2 * 1024); attention: 4096 * 4097 / 2 pairs, 32 heads, 4 * 128 FLOP;
    output: 4096 x 4096; router: 4096 x 8; two experts of 3 x 4096 x 14336.
    """
    found = _by_name(layer_operators(MIXTRAL, 4096, SEQUENCE, Shard(), rows=(1024,) * 8))
    tokens = 4096
    expected = {
        "qkv_projection": 2 * tokens * 4096 * 6144,
        "attention": 4096 * 4097 / 2 * 32 * 4 * 128,
        "output_projection": 2 * tokens * 4096 * 4096,
        "router": 2 * tokens * 4096 * 8,
        "expert_up": 2 * 2 * tokens * 4096 * 2 * 14336,
        "expert_down": 2 * 2 * tokens * 14336 * 4096,
    }
    assert {name: flop(op) for name, op in found.items() if flop(op)} == expected
    # in all: 41.9 M attention parameters, 352.3 M of two experts, and the attention itself
    assert sum(expected.values()) == pytest.approx(3.37e12, rel=0.01)


def test_mixtral_layer_cut_by_tp_and_ep() -> None:
    """tp 2, ep 8, etp 1: half the heads, the tokens of the sequence shard, one whole expert."""
    shard = Shard(tp=2, ep=8, etp=1)
    found = layer_operators(MIXTRAL, 4096, SEQUENCE, shard, rows=(4096,))
    named = _by_name(found)
    assert flop(named["qkv_projection"]) == 2 * 4096 * 4096 * 3072
    assert flop(named["output_projection"]) == 2 * 4096 * 2048 * 4096
    assert flop(named["router"]) == 2 * 2048 * 4096 * 8
    assert flop(named["expert_up"]) == 2 * 4096 * 4096 * 28672
    dispatch = named["dispatch"]
    assert isinstance(dispatch, Exchange)
    assert (dispatch.tokens, dispatch.hidden, dispatch.top_k) == (2048, 4096, 2)
    # into attention and out of it: all tokens, two bytes each; the experts need neither
    for name in ("tp_all_gather", "tp_reduce_scatter"):
        assert [op.payload_bytes for op in _collectives(found, name)] == [4096 * 4096 * 2]


def test_expert_tensor_parallelism_gathers_and_scatters_the_rows() -> None:
    shard = Shard(tp=2, ep=4, etp=2)
    # 2 experts per rank, rows of the 2 ranks that share them
    found = layer_operators(MIXTRAL, 4096, SEQUENCE, shard, rows=(2048, 2048))
    assert [op.payload_bytes for op in _collectives(found, "etp_all_gather")] == [4096 * 4096 * 2]
    assert len(_collectives(found, "etp_reduce_scatter")) == 1
    up = _by_name(found)["expert_up"]
    assert isinstance(up, GroupedGemm)
    assert (up.n, up.k) == (14336, 4096)  # gate and up, half of each


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("ffn", [DenseFfn(width=4096), DenseFfn(width=4096, gated=False)])
def test_ranks_together_compute_what_one_would(tp: int, ffn: FfnKind) -> None:
    layer = Layer(attention=GroupedQueryAttention(heads=16, kv_heads=8, head_dim=64), ffn=ffn)
    shape = Shape(sequences=2, length=256)
    whole = _total(layer_operators(layer, 1024, shape, Shard()))
    for cp in (1, 2):
        part = _total(layer_operators(layer, 1024, shape, Shard(tp=tp, cp=cp)))
        assert part * tp * cp == pytest.approx(whole, rel=1e-12)


def test_fewer_key_value_heads_than_ranks_are_copied() -> None:
    attention = GroupedQueryAttention(heads=8, kv_heads=2, head_dim=64)
    layer = Layer(attention=attention, ffn=DenseFfn(width=1024))
    found = _by_name(layer_operators(layer, 512, SEQUENCE, Shard(tp=4)))
    qkv = found["qkv_projection"]
    assert isinstance(qkv, Gemm)
    assert qkv.n == 64 * (2 + 1 + 1)  # two query heads, one key and one value head


def test_pairs_that_a_mask_lets_through() -> None:
    for length in (1, 2, 7, 64):
        for window in (1, 3, 64, 100):
            seen = sum(1 for q in range(length) for k in range(length) if k <= q and q - k < window)
            assert causal_pairs(length, window) == seen
        assert causal_pairs(length) == length * (length + 1) / 2


def test_latent_attention_of_deepseek_v3_by_hand() -> None:
    """arXiv 2412.19437, section 4.2: 128 heads, query rank 1536, latent 512 + 64, values 128."""
    layer = Layer(attention=MLA, ffn=DenseFfn(width=18432))
    found = _by_name(layer_operators(layer, 7168, SEQUENCE, Shard()))
    tokens = 4096
    assert flop(found["qkv_down_projection"]) == 2 * tokens * 7168 * (1536 + 512 + 64)
    assert flop(found["q_up_projection"]) == 2 * tokens * 1536 * 128 * 192
    assert flop(found["kv_up_projection"]) == 2 * tokens * 512 * 128 * 256
    assert flop(found["output_projection"]) == 2 * tokens * 128 * 128 * 7168
    assert flop(found["attention"]) == 4096 * 4097 / 2 * 128 * 2 * (192 + 128)


@pytest.mark.xfail(strict=True, reason="keys and values are expanded, the latent is gathered")
def test_context_parallel_latent_attention_gathers_what_it_attends_to() -> None:
    """Either the latent travels and every rank expands all of it, or what was expanded travels."""
    layer = Layer(attention=MLA, ffn=DenseFfn(width=18432))
    found = layer_operators(layer, 7168, SEQUENCE, Shard(cp=4))
    up = _by_name(found)["kv_up_projection"]
    assert isinstance(up, Gemm)
    gathered = sum(op.payload_bytes for op in found if isinstance(op, Collective))
    expands_all = up.m == 4096
    expanded_travels = gathered >= 4096 * 128 * (128 + 128) * 2
    assert expands_all or expanded_travels


@pytest.mark.xfail(strict=True, reason="the hidden width is gathered, the squeezed one is not")
def test_tensor_parallel_latent_attention_gathers_squeezed_tokens() -> None:
    """Down projections run on the sequence shard, so 1536 + 576 wide vectors are gathered.

    Megatron-LM, multi_latent_attention.py: q and kv are gathered after linear_q_down_proj and
    linear_kv_down_proj; the hidden states (7168 wide) are not.
    """
    layer = Layer(attention=MLA, ffn=MoeFfn(num_experts=8, top_k=2, expert_width=256))
    found = layer_operators(layer, 7168, SEQUENCE, Shard(tp=4), rows=(2048,) * 8)
    gathered = sum(op.payload_bytes for op in _collectives(found, "tp_all_gather"))
    assert gathered <= 2 * 4096 * (1536 + 576)


def test_linear_attention_by_hand() -> None:
    """16 key and 32 value heads of 128 (Qwen3-Next): q, k of 2048, v and output gate of 4096."""
    attention = LinearAttention(
        key_heads=16, value_heads=32, key_head_dim=128, value_head_dim=128, conv_kernel=4
    )
    layer = Layer(attention=attention, ffn=DenseFfn(width=512))
    found = _by_name(layer_operators(layer, 2048, SEQUENCE, Shard()))
    assert flop(found["linear_projection"]) == 2 * 4096 * 2048 * (2 * 2048 + 2 * 4096)
    assert flop(found["linear_gate_projection"]) == 2 * 4096 * 2048 * 64
    assert flop(found["linear_attention"]) == 2 * 3 * 4096 * 32 * 128 * 128
    assert flop(found["output_projection"]) == 2 * 4096 * 4096 * 2048


def test_logits_by_hand() -> None:
    architecture = load_named("mixtral-8x7b")
    found = _by_name(logits_operators(architecture, SEQUENCE, Shard(tp=4)))
    assert flop(found["logits"]) == 2 * 4096 * 4096 * 8000
    loss = found["cross_entropy"]
    assert isinstance(loss, Pointwise)
    assert read_bytes(loss) == 4096 * 8000 * 4


def test_backward_has_twice_the_products() -> None:
    for operator in layer_operators(MIXTRAL, 4096, SEQUENCE, Shard(), rows=(1024,) * 8):
        grads = _total(list(backward(operator)))
        times = 2.5 if isinstance(operator, AttentionCore) else 2.0  # 5 products for 2
        assert grads == pytest.approx(times * flop(operator))


def test_gradients_of_a_product_have_their_shapes() -> None:
    gemm = Gemm(name="g", module="mlp", input_from="x", m=3, n=5, k=7, dtype="bf16")
    dgrad, wgrad = backward(gemm)
    assert isinstance(dgrad, Gemm)
    assert isinstance(wgrad, Gemm)
    assert (dgrad.m, dgrad.n, dgrad.k) == (3, 7, 5)  # [3, 5] times [5, 7]
    assert (wgrad.m, wgrad.n, wgrad.k) == (7, 5, 3)  # [7, 3] times [3, 5]
    assert read_bytes(wgrad) == 2 * (3 * 7 + 3 * 5)


@pytest.mark.xfail(strict=True, reason="reads the weights instead of writing their gradient")
def test_weight_gradient_of_experts_is_written() -> None:
    """Two experts of one row each: 2 * 64 * 32 gradients, fp32, added to those there."""
    grouped = GroupedGemm(
        name="g", module="moe", input_from="x", rows=(1, 1), n=32, k=64, dtype="bf16"
    )
    wgrad = backward(grouped)[1]
    assert isinstance(wgrad, Compute)
    assert written_bytes(wgrad) >= 2 * 64 * 32 * 4


def test_transfers_have_their_mirror_image() -> None:
    found = layer_operators(MIXTRAL, 4096, SEQUENCE, Shard(tp=2, etp=1), rows=(1024,) * 8)
    gathers = [op for op in found if isinstance(op, Collective) and op.kind == "all_gather"]
    grads = [backward(op)[0] for op in gathers]
    assert all(isinstance(g, Collective) and g.kind == "reduce_scatter" for g in grads)
    exchange = next(op for op in found if isinstance(op, Exchange))
    assert backward(exchange) == (replace(exchange, name="dispatch_grad"),)


def test_context_parallel_gather_by_hand() -> None:
    # 4096 tokens, eight key and eight value heads of 128, two bytes
    found = layer_operators(MIXTRAL, 4096, SEQUENCE, Shard(cp=4), rows=(256,) * 8)
    (gather,) = _collectives(found, "cp_all_gather")
    assert gather.payload_bytes == 4096 * 2 * 8 * 128 * 2
    assert (gather.kind, gather.group) == ("all_gather", "cp")


def test_shared_experts_need_all_tokens_and_routed_ones_their_shard() -> None:
    ffn = MoeFfn(num_experts=8, top_k=2, expert_width=1024, shared_width=2048)
    layer = replace(MIXTRAL, ffn=ffn)
    found = layer_operators(layer, 4096, SEQUENCE, Shard(tp=4), rows=(1024,) * 8)
    named = _by_name(found)
    up, router = named["ffn_up"], named["router"]
    assert isinstance(up, Gemm)
    assert isinstance(router, Gemm)
    assert (up.m, up.n) == (4096, 2 * 2048 // 4)
    assert router.m == 1024
    assert len(_collectives(found, "tp_all_gather")) == 2  # attention and shared expert
