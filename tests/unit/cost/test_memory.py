"""Activations that a layer keeps, by hand: Korthikanti et al., arXiv 2205.05198, section 4.

Their layer with GeLU, dropout and unfused attention keeps sbh (34 + 5 a s / h) bytes. Without
dropout the masks go, 2 sbh outside the scores; with flash attention the scores, 5 a s / h, go.
That leaves 32 sbh: norms 4, input of qkv 2, queries, keys and values 6, input of the output
projection 2, input of the first matrix 2, of the activation 8, of the second matrix 8.
Flash attention keeps one fp32 log-sum-exp per query and head instead of the scores, 4 s b a bytes
(arXiv 2307.08691, section 3.1).
"""

from dataclasses import replace

import pytest

from moesim.cost.recomputation import again, kept_bytes
from moesim.model.architecture import (
    DenseFfn,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    MoeFfn,
)
from moesim.model.layers import layer_operators, logits_operators
from moesim.model.named import load_named
from moesim.model.operators import Compute, Operator
from moesim.model.shapes import Shape, Shard

S, B, H = 512, 2, 1024
SHAPE = Shape(sequences=B, length=S)
SBH = S * B * H
LSE = 4 * S * B * 8
"""Log-sum-exp of the eight heads that all layers here have."""
GPT = Layer(
    attention=GroupedQueryAttention(heads=8, kv_heads=8, head_dim=128),
    ffn=DenseFfn(width=4 * H, gated=False),
)
LLAMA = Layer(
    attention=GroupedQueryAttention(heads=8, kv_heads=2, head_dim=128), ffn=DenseFfn(width=3 * H)
)
LATENT_ATTENTION = LatentAttention(
    heads=8, q_lora_rank=256, kv_lora_rank=128, qk_nope_head_dim=96, qk_rope_head_dim=32,
    v_head_dim=128,
)  # fmt: skip
LATENT = Layer(attention=LATENT_ATTENTION, ffn=DenseFfn(width=4 * H, gated=False))
MOE = replace(LLAMA, ffn=MoeFfn(num_experts=4, top_k=2, expert_width=H // 2))


def _kept(
    layer: Layer, shard: Shard, recompute: tuple[str, ...] = (), rows: tuple[int, ...] = ()
) -> float:
    return kept_bytes(layer_operators(layer, H, SHAPE, shard, rows=rows), recompute)


def test_gpt_layer_keeps_32_sbh() -> None:
    assert _kept(GPT, Shard()) == 32 * SBH + LSE


def test_llama_layer_by_hand() -> None:
    """Norms 4, qkv 2, queries 2, keys and values 2 * 2 / 4, output 2, and the gated FFN.

    Its input 2, gate and up 2 * 2 * 3, their product 2 * 3.
    """
    assert _kept(LLAMA, Shard()) == (4 + 2 + 2 + 1 + 2 + 2 + 12 + 6) * SBH + LSE


def test_tensor_parallelism_without_sequence_parallelism() -> None:
    """Equation 2 without masks: sbh (8 + 24 / t); norms and inputs of both blocks stay whole."""
    for t in (2, 4, 8):
        shard = Shard(tp=t, sequence_parallel=False)
        assert _kept(GPT, shard) == pytest.approx((8 + 24 / t) * SBH + LSE / t)


@pytest.mark.parametrize("t", [2, 4, 8])
def test_sequence_parallelism_divides_everything(t: int) -> None:
    """Equation 4: all of it divided by t; each rank keeps its shard and gathers it once more."""
    assert _kept(GPT, Shard(tp=t)) == pytest.approx((32 * SBH + LSE) / t)


def test_context_parallelism_divides_everything() -> None:
    """Each rank keeps the keys and values of its own tokens and gathers the others' again."""
    for layer in (GPT, LATENT):
        for c in (2, 4):
            assert _kept(layer, Shard(cp=c)) == pytest.approx(_kept(layer, Shard()) / c)


@pytest.mark.parametrize("t", [1, 2, 4])
def test_latent_attention_by_hand(t: int) -> None:
    """Per token, in elements of two bytes: norms 2 h, input of the down projections h.

    Low ranks 256 and 128, each the input of an up projection; eight heads with queries and keys of
    96 + 32 and values of 128, and the output of attention, 8 * 128; then the FFN, h + 4 h + 4 h.
    Cut by t with sequence parallelism: down projections run on the shard, low ranks are gathered.
    """
    elements = (2 + 1) * H + 256 + 128 + 8 * (128 + 128 + 128) + 8 * 128 + 9 * H
    expected = 2 * S * B * elements + LSE
    assert _kept(LATENT, Shard(tp=t)) == pytest.approx(expected / t)


def test_latent_attention_without_a_query_rank_keeps_its_input_once() -> None:
    # query and down projection read the same normed tokens: the 256 wide vector goes, no more
    attention = replace(LATENT_ATTENTION, q_lora_rank=None)
    plain = replace(LATENT, attention=attention)
    for t in (1, 4):
        less = 2 * S * B * 256 / t
        assert _kept(plain, Shard(tp=t)) == pytest.approx(_kept(LATENT, Shard(tp=t)) - less)


def test_full_recomputation_keeps_two_bytes_per_element() -> None:
    """2 sbh per layer (section 5), of the rank's own tokens with sequence parallelism."""
    for layer in (GPT, LLAMA, MOE):
        assert _kept(layer, Shard(), ("full",), rows=(512,) * 4) == 2 * SBH
        assert _kept(layer, Shard(tp=4), ("full",), rows=(512,) * 4) == 2 * SBH / 4


@pytest.mark.parametrize(
    ("recompute", "less"),
    [
        (("layernorm",), 4),  # the outputs of both norms
        (("mlp",), 12 + 6),  # gate and up, and their product
        (("layernorm", "mlp"), 22),
    ],
)
def test_selective_recomputation_by_hand(recompute: tuple[str, ...], less: int) -> None:
    assert _kept(LLAMA, Shard(), recompute) == _kept(LLAMA, Shard()) - less * SBH


def test_recomputed_up_projections_by_hand() -> None:
    """8 heads: queries and keys of 96 + 32, values of 128, two bytes each: 3 * 8 * 128 * 2 / H."""
    assert _kept(LATENT, Shard(), ("mla_up_proj",)) == _kept(LATENT, Shard()) - 6 * SBH


def test_recomputed_scores_by_hand() -> None:
    """Attention that is not fused keeps 5 bytes for each pair of its 8 heads (section 4.1)."""
    unfused = Shard(fused_attention=False)
    scores = 5 * 8 * B * S * S
    assert _kept(GPT, unfused) == 32 * SBH + scores
    assert _kept(GPT, unfused, ("core_attn",)) == _kept(GPT, Shard(), ("core_attn",))


def test_recomputed_attention_finds_its_log_sum_exp_again() -> None:
    """Output and log-sum-exp are what attention makes, so recomputing it makes both again."""
    assert _kept(GPT, Shard(), ("core_attn",)) == 30 * SBH


def test_experts_by_hand() -> None:
    """Two rows of H per token: 4 sbh in; gate and up 2 * 2 * 1/2 each, product 2 * 1/2 each.

    The router keeps its input, 2 sbh; norms and attention as in the dense layer, 4 + 7.
    """
    rows = (S * B * 2 // 4,) * 4
    experts = 4 + 4 + 2
    assert _kept(MOE, Shard(), (), rows) == (4 + 7 + 2 + experts) * SBH + LSE
    # the product alone, and all three of them
    assert _kept(MOE, Shard(), ("moe_act",), rows) == (4 + 7 + 2 + experts - 2) * SBH + LSE
    assert _kept(MOE, Shard(), ("moe",), rows) == (4 + 7 + 2) * SBH + LSE


def test_what_two_matrices_read_is_kept_once() -> None:
    """Router and shared expert read the same normed tokens: 2 sbh, not 4.

    The shared expert of width H adds gate and up 4 sbh and their product 2 sbh.
    """
    rows = (S * B * 2 // 4,) * 4
    ffn = MoeFfn(num_experts=4, top_k=2, expert_width=H // 2, shared_width=H)
    shared = replace(MOE, ffn=ffn)
    assert _kept(shared, Shard(), (), rows) - _kept(MOE, Shard(), (), rows) == 6 * SBH
    # recomputed alone, its gate and up and their product go; what enters it the router keeps
    assert _kept(shared, Shard(), ("shared_experts",), rows) == _kept(MOE, Shard(), (), rows)
    again_there = again(layer_operators(shared, H, SHAPE, Shard(), rows=rows), ("shared_experts",))
    assert [one.name for one in again_there] == ["ffn_up", "ffn_activation", "ffn_down"]
    # recomputed with the whole block, both keep what enters it
    assert _kept(shared, Shard(), ("moe",), rows) == _kept(MOE, Shard(), ("moe",), rows)


def test_logits_by_hand() -> None:
    """Final norm 2 sbh, input of the output matrix 2 sbh, logits 4 sbv in fp32 (section 4.3)."""
    architecture = load_named("mixtral-8x7b")
    found = logits_operators(architecture, SHAPE, Shard(cross_entropy="unfused"))
    assert kept_bytes(found, ()) == S * B * (4 * 4096 + 4 * 32000)
    # with sequence parallelism the two inputs are cut as the logits are
    cut = logits_operators(architecture, SHAPE, Shard(tp=4, cross_entropy="unfused"))
    assert kept_bytes(cut, ()) == S * B * (4 * 4096 + 4 * 32000) / 4


def test_what_runs_again() -> None:
    found = layer_operators(MOE, H, SHAPE, Shard(), rows=(512,) * 4)
    assert again(found, ()) == []
    assert again(found, ("full",)) == found
    assert [op.name for op in again(found, ("core_attn",))] == ["attention"]
    assert [op.name for op in again(found, ("moe_act",))] == ["expert_activation"]
    names = [op.name for op in again(found, ("moe",))]
    assert {"dispatch", "expert_up", "expert_activation", "expert_down", "combine"} <= set(names)


def _modules(found: list[Operator]) -> set[str]:
    return {op.module for op in found if isinstance(op, Compute)}


def test_recomputing_moe_covers_the_whole_block() -> None:
    """Megatron-LM moe_layer.py checkpoints router, experts and shared experts together."""
    ffn = MoeFfn(num_experts=4, top_k=2, expert_width=H // 2, shared_width=H)
    found = layer_operators(replace(MOE, ffn=ffn), H, SHAPE, Shard(), rows=(512,) * 4)
    assert {"router", "shared", "moe"} <= _modules(again(found, ("moe",)))
