"""Parameter counts of parts, against sums done by hand in the comments."""

from dataclasses import replace

import pytest

from moesim.model.architecture import (
    Architecture,
    AttentionKind,
    DenseFfn,
    FfnKind,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    LinearAttention,
    MoeFfn,
    Run,
    SparseIndexer,
)
from moesim.model.parameters import (
    active_params,
    attention_params,
    expert_params,
    ffn_params,
    ffn_unrouted_params,
    final_norm_params,
    layer_params,
    lm_head_params,
    norm_params,
    routed_expert_params,
    router_params,
    shared_expert_params,
    total_params,
)

GQA = GroupedQueryAttention(heads=4, kv_heads=2, head_dim=3)
MLA = LatentAttention(
    heads=2, q_lora_rank=5, kv_lora_rank=4, qk_nope_head_dim=3, qk_rope_head_dim=2, v_head_dim=6
)
LINEAR = LinearAttention(
    key_heads=2, value_heads=4, key_head_dim=3, value_head_dim=5, conv_kernel=2
)


@pytest.mark.parametrize(
    ("attention", "expected"),
    [  # hidden 10
        # q 10*12, k and v 10*6 each, o 12*10
        (GQA, 360),
        (replace(GQA, qkv_bias=True), 360 + 12 + 6 + 6),
        (replace(GQA, output_bias=True), 360 + 10),
        (replace(GQA, qk_norm="per_head"), 360 + 3 + 3),
        (replace(GQA, qk_norm="per_layer"), 360 + 12 + 6),
        (replace(GQA, sinks=True), 360 + 4),
        (replace(GQA, output_gate=True), 360 + 120),
        (replace(GQA, shared_key_value=True), 360 - 60),
        (replace(GQA, window=7, causal=False), 360),
        # q 10*5 + norm 5 + 5*10; kv 10*6 + norm 4 + 4*(6+12); o 12*10
        (MLA, 50 + 5 + 50 + 60 + 4 + 72 + 120),
        (replace(MLA, q_lora_rank=None), 100 + 60 + 4 + 72 + 120),
        (replace(MLA, bias=True), 361 + 5 + 6 + 10),
        # indexer: 5*21 queries, 10*7 keys, norm 2*7, 10*3 head weights
        (
            replace(MLA, indexer=SparseIndexer(heads=3, head_dim=7, top_k=1)),
            361 + 105 + 70 + 14 + 30,
        ),
        # q and k 10*6 each, v and its gate 10*20 each, o 20*10; taps 32*2; gates 2*4*(10+1); norm 5
        (LINEAR, 120 + 400 + 200 + 64 + 88 + 5),
        (replace(LINEAR, conv_kernel=0, rule="lightning"), 120 + 400 + 200 + 20),
    ],
)
def test_attention(attention: AttentionKind, expected: int) -> None:
    assert attention_params(attention, 10) == expected


MOE = MoeFfn(num_experts=4, top_k=2, expert_width=7)


@pytest.mark.parametrize(
    ("ffn", "expected"),
    [  # hidden 10
        (DenseFfn(width=7), 210),
        (DenseFfn(width=7, gated=False), 140),
        (DenseFfn(width=7, bias=True), 210 + 14 + 10),
        (DenseFfn(width=7, gated=False, bias=True), 140 + 7 + 10),
        (MOE, 4 * 210 + 40),
        (replace(MOE, gated=False), 4 * 140 + 40),
        (replace(MOE, expert_bias=True), 4 * 234 + 40),
        (replace(MOE, router_bias=True), 4 * 210 + 44),
        (replace(MOE, shared_width=2, shared_gate=True), 4 * 210 + 40 + 60 + 10),
        (replace(MOE, parallel_dense_width=3), 4 * 210 + 40 + 90),
        (replace(MOE, extra_params=9), 4 * 210 + 40 + 9),
    ],
)
def test_feed_forward(ffn: FfnKind, expected: int) -> None:
    assert ffn_params(ffn, 10) == expected


def test_parts_of_a_mixture() -> None:
    moe = replace(MOE, shared_width=2, router_bias=True)
    assert expert_params(moe, 10) == 210
    assert router_params(moe, 10) == 44
    assert shared_expert_params(moe, 10) == 60
    assert ffn_unrouted_params(moe, 10) == 104
    assert ffn_unrouted_params(DenseFfn(width=7), 10) == 210


def test_norms() -> None:
    assert norm_params("rms", 10) == 10
    assert norm_params("layer", 10) == 20


def test_a_layer_is_the_sum_of_its_parts() -> None:
    layer = Layer(
        attention=GQA,
        ffn=MOE,
        cross_attention=replace(GQA, causal=False),
        norms=3,
        norm="layer",
        extra_params=5,
    )
    assert layer_params(layer, 10) == 360 + 360 + 880 + 60 + 5


def test_a_network_is_the_sum_of_its_layers() -> None:
    layer = Layer(attention=GQA, ffn=MOE)
    network = Architecture(
        name="small", source="test", hidden=10, vocab=100, decoder=(Run(layer, 3),), mtp_layers=1
    )
    one = 360 + 880 + 20
    assert total_params(network) == 1000 + 3 * one + 10 + 1000  # the MTP module is not in it
    assert routed_expert_params(network) == 3 * 4 * 210
    assert active_params(network) == 2010 + 3 * (one - 2 * 210)
    tied = replace(network, tied_embeddings=True, lm_head_bias=True, extra_params=7)
    assert lm_head_params(tied) == 100
    assert total_params(tied) == 1000 + 3 * one + 10 + 100 + 7
    both = replace(network, encoder=(Run(layer, 1),), norm="layer")
    assert final_norm_params(both) == 40
    assert total_params(both) == 1000 + 4 * one + 40 + 1000
