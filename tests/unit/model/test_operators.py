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
    SparseIndexer,
)
from moesim.model.backward import backward
from moesim.model.layers import layer_operators, logits_operators, mtp_operators
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
    saved_bytes,
    state_bytes,
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


def test_context_parallel_latent_attention_gathers_what_it_attends_to() -> None:
    """A rank expands its own 1024 tokens; keys of 128 + 64 and values of 128 per head travel."""
    layer = Layer(attention=MLA, ffn=DenseFfn(width=18432))
    found = layer_operators(layer, 7168, SEQUENCE, Shard(cp=4))
    named = _by_name(found)
    up, core = named["kv_up_projection"], named["attention"]
    assert isinstance(up, Gemm)
    assert isinstance(core, AttentionCore)
    assert (up.m, core.queries, core.own_keys, core.keys) == (1024, 1024, 1024, 4096)
    (gather,) = _collectives(found, "cp_all_gather")
    assert gather.payload_bytes == 4096 * 128 * (128 + 64 + 128) * 2
    # with the heads cut, so are the keys and values that travel
    (half,) = _collectives(layer_operators(layer, 7168, SEQUENCE, Shard(tp=2, cp=4)), gather.name)
    assert half.payload_bytes == gather.payload_bytes / 2


def test_tensor_parallel_latent_attention_gathers_squeezed_tokens() -> None:
    """Down projections run on the sequence shard, so 1536 + 576 wide vectors are gathered.

    Megatron-LM, multi_latent_attention.py: q and kv are gathered after linear_q_down_proj and
    linear_kv_down_proj; the hidden states (7168 wide) are not.
    """
    layer = Layer(attention=MLA, ffn=MoeFfn(num_experts=8, top_k=2, expert_width=256))
    found = layer_operators(layer, 7168, SEQUENCE, Shard(tp=4), rows=(2048,) * 8)
    gathers = [op.payload_bytes for op in _collectives(found, "tp_all_gather")]
    assert gathers == [2 * 4096 * (1536 + 576)]
    # without a low rank for queries their projection needs the hidden width (DeepSeek-V2-Lite)
    plain = replace(layer, attention=replace(MLA, q_lora_rank=None))
    found = layer_operators(plain, 7168, SEQUENCE, Shard(tp=4), rows=(2048,) * 8)
    gathers = [op.payload_bytes for op in _collectives(found, "tp_all_gather")]
    assert gathers == [2 * 4096 * (7168 + 576)]


INDEXED = Layer(
    attention=replace(MLA, indexer=SparseIndexer(heads=64, head_dim=128, top_k=2048)),
    ffn=MoeFfn(num_experts=8, top_k=2, expert_width=256),
)


def test_the_indexer_projects_tokens_that_its_rank_has() -> None:
    """Its keys are projected from the hidden state (DeepSeek-V3.2, section 2.1).

    Either they are on the sequence shard, as the other down projections, or 7168 channels of all
    tokens are gathered.
    """
    found = layer_operators(INDEXED, 7168, SEQUENCE, Shard(tp=4), rows=(2048,) * 8)
    keys = _by_name(found)["indexer_k_projection"]
    assert isinstance(keys, Gemm)
    gathered = sum(op.payload_bytes for op in _collectives(found, "tp_all_gather"))
    assert keys.m == 1024 or gathered >= 2 * 4096 * 7168


def test_a_context_parallel_indexer_gathers_its_keys() -> None:
    # one key of 128 per token beside 128 heads of 192 + 128
    found = layer_operators(INDEXED, 7168, SEQUENCE, Shard(cp=4), rows=(2048,) * 8)
    gathered = sum(op.payload_bytes for op in found if isinstance(op, Collective))
    assert gathered >= 2 * 4096 * (128 * 320 + 128)


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
    assert read_bytes(loss) == 4096 * 8000 * 2


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
    # input and gradient, and the fp32 sums of 7 x 5 weights, read and written
    assert read_bytes(wgrad) == 2 * (3 * 7 + 3 * 5) + 4 * 7 * 5
    assert written_bytes(wgrad) == 4 * 7 * 5
    assert read_bytes(dgrad) == 2 * (3 * 5 + 5 * 7)
    assert written_bytes(dgrad) == 2 * 3 * 7


def test_gradients_of_experts_by_hand() -> None:
    """Three experts of 64 x 32, one without rows: 5 rows in all, two matrices touched."""
    grouped = GroupedGemm(
        name="g", module="moe", input_from="x", rows=(2, 0, 3), n=32, k=64, dtype="bf16"
    )
    dgrad, wgrad = backward(grouped)
    assert isinstance(dgrad, GroupedGemm)
    assert isinstance(wgrad, GroupedGemm)
    assert flop(dgrad) == flop(wgrad) == 2 * 5 * 64 * 32
    assert read_bytes(dgrad) == 2 * (5 * 32 + 2 * 64 * 32)
    assert written_bytes(dgrad) == 2 * 5 * 64
    assert read_bytes(wgrad) == 2 * 5 * (64 + 32) + 4 * 2 * 64 * 32
    assert written_bytes(wgrad) == 4 * 2 * 64 * 32


def test_attention_keeps_its_own_keys_and_makes_gradients_of_all() -> None:
    """A quarter of 4096 tokens, 32 query heads and 8 key/value heads of 128.

    Kept: queries, own keys and values at two bytes, a log-sum-exp of four bytes per head. Backward
    writes gradients of its queries and of every key and value that it read.
    """
    core = _by_name(layer_operators(MIXTRAL, 4096, SEQUENCE, Shard(cp=4), rows=(128,) * 8))
    attention = core["attention"]
    assert isinstance(attention, AttentionCore)
    queries, keys = 1024 * 32 * 128, 1024 * 8 * 128
    assert saved_bytes(attention) == 2 * (queries + 2 * keys)
    assert state_bytes(attention) == 4 * 1024 * 32
    assert written_bytes(attention) == 2 * queries
    (grad,) = backward(attention)
    assert isinstance(grad, AttentionCore)
    assert written_bytes(grad) == 2 * (queries + 4 * 2 * keys)
    # queries times keys and probabilities times values, then three and two of these
    pairs = 4096 * 4097 / 2 / 4
    assert flop(attention) == 2 * pairs * 32 * (128 + 128)
    assert flop(grad) == 2 * pairs * 32 * (3 * 128 + 2 * 128)


def test_transfers_have_their_mirror_image() -> None:
    found = layer_operators(MIXTRAL, 4096, SEQUENCE, Shard(tp=2, etp=1), rows=(1024,) * 8)
    gathers = [op for op in found if isinstance(op, Collective) and op.kind == "all_gather"]
    grads = [backward(op)[0] for op in gathers]
    assert all(isinstance(g, Collective) and g.kind == "reduce_scatter" for g in grads)
    exchange = next(op for op in found if isinstance(op, Exchange))
    assert backward(exchange) == (replace(exchange, name="dispatch_grad"),)
    # of keys and values a rank keeps its own: the others come once more before gradients leave
    found = layer_operators(MIXTRAL, 4096, SEQUENCE, Shard(cp=4), rows=(256,) * 8)
    (gather,) = _collectives(found, "cp_all_gather")
    again, grad = backward(gather)
    assert again == gather
    assert grad == replace(gather, name="cp_all_gather_grad", kind="reduce_scatter")


def test_context_parallel_gather_by_hand() -> None:
    # 4096 tokens, eight key and eight value heads of 128, two bytes
    found = layer_operators(MIXTRAL, 4096, SEQUENCE, Shard(cp=4), rows=(256,) * 8)
    (gather,) = _collectives(found, "cp_all_gather")
    assert gather.payload_bytes == 4096 * 2 * 8 * 128 * 2
    assert (gather.kind, gather.group) == ("all_gather", "cp")


def _permutations(
    rows: tuple[int, ...], *, sends_once: bool = False
) -> dict[str, tuple[float, float]]:
    shard = Shard(ep=8 // len(rows), sends_once=sends_once)
    found = layer_operators(MIXTRAL, 4096, SEQUENCE, shard, rows=rows)
    return {
        op.name: (op.elements_read, op.elements_written)
        for op in found
        if isinstance(op, Pointwise) and op.module == "moe"
    }


def test_permutations_by_hand() -> None:
    """4096 tokens become 8192 rows to send; what arrives is sorted where a rank has many experts.

    Source: Megatron-LM token_dispatcher.py, MoEAlltoAllTokenDispatcher: sort_chunks_by_idxs before
    and after the experts if num_local_experts > 1.
    """
    row = 4096.0
    sending = {
        "permute": (4096 * row, 8192 * row),
        "unpermute": (8192 * row, 4096 * row),
    }
    assert _permutations((9000,)) == sending
    arrived = (9000 * row, 9000 * row)
    expected = {**sending, "sort_by_expert": arrived, "sort_by_source": arrived}
    assert _permutations((4000, 5000)) == expected


def test_tokens_that_come_once_are_copied_where_their_experts_are() -> None:
    """Two of eight experts on four ranks: 4 (1 - C(6, 2) / C(8, 2)) = 13/7 of them reached, so
    13/14 of the rows arrive. One expert on each rank: all are distinct."""
    row = 4096.0
    assert _permutations((9000,), sends_once=True) == {
        "permute": (9000 * row, 9000 * row), "unpermute": (9000 * row, 9000 * row),
    }  # fmt: skip
    found = _permutations((4000, 5000), sends_once=True)
    arrived = 9000 * row * 13 / 14
    assert found["permute"] == pytest.approx((arrived, 9000 * row))
    assert found["unpermute"] == pytest.approx((9000 * row, arrived))
    assert set(found) == {"permute", "unpermute"}


def test_dropped_and_padded_copies_are_permuted() -> None:
    # one and a half rows per token instead of two, or three
    for copies in (1.5, 3.0):
        found = _by_name(
            layer_operators(MIXTRAL, 4096, SEQUENCE, Shard(ep=8), rows=(4096,), copies=copies)
        )
        permute, combine = found["permute"], found["combine"]
        assert isinstance(permute, Pointwise)
        assert isinstance(combine, Exchange)
        assert permute.elements_written == copies * 4096 * 4096
        assert combine.copies == copies


@pytest.mark.parametrize(
    ("dtype", "wide", "size"), [("bf16", "bf16", 2), ("fp8", "bf16", 2), ("fp32", "fp32", 4)]
)
def test_products_have_the_compute_type_and_the_rest_a_wide_one(
    dtype: str, wide: str, size: int
) -> None:
    """DeepSeek-V3 keeps attention, gating and norms in bf16 (arXiv 2412.19437, section 3.3.1)."""
    shard = Shard(tp=2, etp=2, dtype=dtype)
    found = layer_operators(MIXTRAL, 4096, SEQUENCE, shard, rows=(1024,) * 8)
    products = {"qkv_projection", "output_projection", "expert_up", "expert_down"}
    for op in found:
        if isinstance(op, Compute):
            assert op.dtype == (dtype if op.name in products else wide), op.name
        elif isinstance(op, Exchange):
            assert (op.dtype, op.backward_dtype) == (wide, wide)
        else:
            rows = 8192 if op.group == "etp" else 4096
            assert op.payload_bytes == rows * 4096 * size


def _prediction_module(tp: int) -> list[Operator]:
    return mtp_operators(load_named("deepseek-v3"), SEQUENCE, Shard(tp=tp))


def test_the_projection_of_a_prediction_module_is_cut() -> None:
    """From hidden state and embedding, 2 * 7168 wide, to 7168 over four ranks (equation 21)."""
    found = _prediction_module(4)
    assert flop(_by_name(found)["mtp_projection"]) == 2 * 4096 * 2 * 7168 * 7168 / 4
    gather = next(op for op in found if op.name == "tp_all_gather")
    assert isinstance(gather, Collective)
    assert gather.payload_bytes == 2 * 4096 * 2 * 7168


def test_the_columns_of_a_prediction_module_are_brought_together() -> None:
    """Megatron-LM multi_token_prediction.py: gather_from_tensor_model_parallel_region."""
    found = _prediction_module(4)
    after = [op.name for op in found].index("mtp_projection") + 1
    assert sum(op.payload_bytes for op in found[after:] if isinstance(op, Collective)) > 0


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
    # the router keeps what both read, on its shard; the shared expert gathers it again
    assert saved_bytes(router) == 2 * 1024 * 4096
    assert saved_bytes(up) == 0
    assert up.module == "shared"
