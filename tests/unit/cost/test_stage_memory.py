"""What a rank of a stage holds: parameters, optimizer states, micro-batches in flight."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.cost.layout import Layout
from moesim.cost.memory import StageMemory
from moesim.cost.optimizer import optimizer_rule, owned_params, state_bytes, update_s
from moesim.cost.parameters import StageParams, stage_params
from moesim.cost.pipeline import chunks
from moesim.model.named import load_named
from moesim.model.parameters import total_params
from moesim.model.shapes import Shard
from tests.laws.small_runs import dense, outcome
from tests.unit.cost.machines import IDEAL, ROUND

SBH = 1024 * 512
"""Tokens of a sequence times hidden width, of the small model."""
LSE = 4 * 1024 * 8

PARAMS = StageParams(attention=100.0, routed_experts=1000.0)


def _layout(**degrees: int) -> Layout:
    every: dict[str, Any] = {
        "tp": 1,
        "pp": 1,
        "vpp": 1,
        "cp": 1,
        "ep": 1,
        "etp": 1,
        "dp": 8,
        **degrees,
    }
    return Layout(
        tp=every["tp"], pp=every["pp"], vpp=every["vpp"], cp=every["cp"], ep=every["ep"],
        etp=every["etp"], dp=every["dp"],
        sequence_parallel=True, schedule="1f1b", dispatcher="alltoall", dispatch_dtype=None,
    )  # fmt: skip


def test_adam_takes_18_bytes_per_parameter() -> None:
    """bf16 weight 2, fp32 gradient 4, fp32 master weight and two moments 12 (Megatron-LM)."""
    rule = optimizer_rule("adam", "bf16", "fp32", distributed=False)
    assert rule.weight_bytes + rule.gradient_bytes + rule.state_bytes == 18
    assert state_bytes(PARAMS, rule, _layout()) == 12 * 1100
    narrow = optimizer_rule("adam", "bf16", "bf16", distributed=False)
    assert narrow.weight_bytes + narrow.gradient_bytes + narrow.state_bytes == 16
    # fp32 training keeps no second copy of its weights: 4 + 4 + 8
    whole = optimizer_rule("adam", "fp32", "fp32", distributed=False)
    assert whole.weight_bytes + whole.gradient_bytes + whole.state_bytes == 16
    assert optimizer_rule("sgd", "bf16", "fp32", distributed=False).state_bytes == 4


@pytest.mark.parametrize(
    ("moments", "held"),
    [
        (("fp32", "fp32"), 12), (("bf16", "bf16"), 8), (("fp16", "fp16"), 8), (("fp8", "fp8"), 6),
        (("int8", "int8"), 6 + 2 * 4 / 2048), (("fp8", "fp16"), 7), (("bf16", "fp32"), 10),
    ],
)  # fmt: skip
def test_moments_of_fewer_bytes(moments: tuple[str, str], held: float) -> None:
    """A fp32 master weight, 4 bytes, and two moments; an offloaded half takes half of them away."""
    rule = optimizer_rule("adam", "bf16", "fp32", distributed=False, moment_dtypes=moments)
    assert state_bytes(PARAMS, rule, _layout()) == pytest.approx(held * 1100)
    half = replace(rule, offload=0.5)
    assert state_bytes(PARAMS, half, _layout()) == pytest.approx((4 + (held - 4) / 2) * 1100)
    assert (
        optimizer_rule("sgd", "bf16", "fp32", distributed=False, moment_dtypes=moments).state_bytes
        == 4
    )


def test_spread_states_take_12_over_their_replicas() -> None:
    """6 + 12 / dp per dense parameter; an expert's states lie on its own replicas only.

    dp 8 with ep 4: dense weights have 8 replicas, an expert 2.
    """
    rule = optimizer_rule("adam", "bf16", "fp32", distributed=True)
    layout = _layout(ep=4)
    assert owned_params(PARAMS, rule, layout) == 100 / 8 + 1000 / 2
    assert state_bytes(PARAMS, rule, layout) == 12 * (100 / 8 + 1000 / 2)
    # context parallel ranks are replicas too: 2 * 8, and tp 2 * cp 2 * dp 8 / ep 4 = 8
    wide = _layout(tp=2, cp=2, ep=4)
    assert owned_params(PARAMS, rule, wide) == 100 / 16 + 1000 / 8


def test_update_by_hand() -> None:
    """12 bytes of states read and written, gradient 4 read, weight 2 written: 30 per parameter."""
    rule = optimizer_rule("adam", "bf16", "fp32", distributed=False)
    assert update_s(PARAMS, rule, _layout(), ROUND, IDEAL) == pytest.approx(1100 * 30 / 1e12)


@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v2", "qwen3-30b-a3b", "llama-3.1-8b"])
@pytest.mark.parametrize(("tp", "ep", "pp"), [(1, 1, 1), (1, 4, 2), (1, 2, 3), (1, 8, 4)])
def test_ranks_together_hold_the_network(name: str, tp: int, ep: int, pp: int) -> None:
    """Dense parts once per stage, experts once per ep ranks; no part is lost or held twice."""
    architecture = load_named(name)
    layers = architecture.num_layers
    sizes = [layers // pp] * (pp - 1) + [layers - (pp - 1) * (layers // pp)]
    ep = ep if architecture.is_moe else 1
    held = 0.0
    for stage in chunks(architecture, pp, 1, sizes):
        found = stage_params(architecture, stage, Shard(tp=tp, ep=ep))
        held += found.dense + found.routed_experts * ep
    assert held == pytest.approx(total_params(architecture), rel=1e-12)


def test_tensor_parallel_ranks_repeat_norms_only() -> None:
    """Llama 3.1 8B: 65 norms of 4096 stay on each of four ranks, all else is cut."""
    architecture = load_named("llama-3.1-8b")
    (stage,) = chunks(architecture, 1)
    found = stage_params(architecture, stage, Shard(tp=4))
    norms = 65 * 4096
    assert 4 * found.total == pytest.approx(total_params(architecture) + 3 * norms, rel=1e-12)


def test_tied_embeddings_lie_on_both_ends() -> None:
    architecture = load_named("gpt3-175b")
    assert architecture.tied_embeddings
    table = architecture.vocab * architecture.hidden
    first, last = (
        stage_params(architecture, stage, Shard()) for stage in chunks(architecture, 2, 1, [48, 48])
    )
    assert first.embeddings == last.embeddings == table


def test_early_stages_hold_more_micro_batches(tmp_path: Path) -> None:
    """1F1B: stage s of p holds p - s micro-batches; the middle stages are alike but for that.

    Two layers of GPT-like 32 sbh: here hidden 512, 8 query and 4 key/value heads of 64, gated FFN
    of 1024: norms 4, qkv 2, queries 2, keys and values 2, output 2, FFN 2 + 8 + 4 = 26 sbh, and
    four bytes of log-sum-exp per token and head.
    """
    made = outcome(tmp_path, {"parallel": {"pp": 4, "ep": 1}}, dense(1024))
    kept = [stage.activations for stage in made.memory]
    layer = 26 * SBH + LSE
    assert kept[1] == 3 * 2 * layer
    assert kept[2] == 2 * 2 * layer
    assert kept[0] == pytest.approx(4 * 2 * layer)  # the embedding keeps nothing
    # the last one holds a single micro-batch, and final norm, its output and bf16 logits
    assert kept[3] == 2 * layer + 4 * SBH + 1024 * 4096 * 2


def test_the_last_stage_holds_logits_and_their_gradient(tmp_path: Path) -> None:
    """Two matrices of 1024 x 4096, bf16 as the product makes them, beside the fp32 copy kept."""
    native = {"training": {"cross_entropy": "native"}}
    made = outcome(tmp_path, {"parallel": {"pp": 4, "ep": 1}, **native}, dense(1024))
    assert [stage.working_set for stage in made.memory] == [0, 0, 0, 2 * 1024 * 4096 * 2]
    # tensor parallelism cuts the vocabulary
    cut = outcome(tmp_path, {"parallel": {"pp": 4, "ep": 1, "tp": 2}, **native}, dense(1024))
    assert cut.memory[3].working_set == 2 * 1024 * 2048 * 2


def test_a_fused_loss_writes_the_gradient_over_the_logits(tmp_path: Path) -> None:
    made = outcome(tmp_path, {"parallel": {"pp": 4, "ep": 1}}, dense(1024))
    assert [stage.working_set for stage in made.memory] == [0, 0, 0, 0]


@pytest.mark.parametrize("vocab", [512, 4096])
def test_full_recomputation_brings_one_layer_back(tmp_path: Path, vocab: int) -> None:
    """Each of 8 layers keeps 2 sbh; while one runs again it holds 24 more, and the log-sum-exp.

    Logits and their gradient, two bytes each, are there at another time: the larger one counts.
    """
    changes = {
        "parallel": {"ep": 1}, "training": {"recompute": "full", "cross_entropy": "native"}
    }  # fmt: skip
    (held,) = outcome(tmp_path, changes, {**dense(1024), "vocab": vocab}).memory
    assert held.activations == 8 * 2 * SBH + 4 * SBH + 1024 * vocab * 4
    assert held.working_set == max(24 * SBH + LSE, 2 * 1024 * vocab * 2)
    # 12.6 MB of a layer against 2.1 MB and 16.8 MB of logits
    assert (held.working_set == 24 * SBH + LSE) == (vocab == 512)


def test_an_encoder_decoder_layer_by_hand(tmp_path: Path) -> None:
    """T5-Base, one sequence of 512 tokens in the encoder and 128 in the decoder.

    A layer keeps 32 bytes per token and channel (see test_memory.py) and 4 per token and head.
    Cross attention adds a norm 2, its output 2, queries 2 and the output of attention 2 per decoder
    token, keys and values 4 per encoder token. The end keeps 4, and 2 per logit. The encoder's
    final norm keeps its input and, once for all decoder layers, its output: 4.
    """
    assert _t5(tmp_path).activations == _t5_kept() + 4 * 512 * 768


def _t5_kept() -> int:
    encoder, decoder, heads, hidden = 512, 128, 12, 768
    layers = 12 * (encoder + decoder) * (32 * hidden + 4 * heads)
    cross = 12 * (decoder * (8 * hidden + 4 * heads) + encoder * 4 * hidden)
    return layers + cross + decoder * 4 * hidden + decoder * 2 * 32128


def _t5(folder: Path) -> StageMemory:
    changes = {
        "cluster": {"devices": 1}, "parallel": {"ep": 1}, "model": "t5-base",
        "training": {"sequence_length": 512, "target_length": 128, "global_batch": 1},
    }  # fmt: skip
    (held,) = outcome(folder, changes).memory
    return held


def test_updated_weights_travel_at_two_bytes() -> None:
    """fp8 training holds bf16 weights and an fp8 copy, 3 bytes; what travels is bf16."""
    found = {
        precision: optimizer_rule("adam", precision, "fp32", distributed=True)
        for precision in ("bf16", "fp8", "fp32")
    }
    assert {name: rule.weight_bytes for name, rule in found.items()} == {
        "bf16": 2, "fp8": 3, "fp32": 4
    }  # fmt: skip
    assert {name: rule.gathered_bytes for name, rule in found.items()} == {
        "bf16": 2, "fp8": 2, "fp32": 4
    }  # fmt: skip


def test_fewer_key_value_heads_than_ranks_are_held_twice() -> None:
    """Llama 3.1 8B, 8 key/value heads on 16 ranks: each holds one, half of them a copy.

    The share of a rank counts half a head of 128 x 4096 for keys and half for values; 32 layers.
    """
    architecture = load_named("llama-3.1-8b")
    (stage,) = chunks(architecture, 1)
    found = stage_params(architecture, stage, Shard(tp=16)).attention
    queries, keys = 4096 * 4096, 4096 * 1024
    assert found == 32 * ((2 * queries + 2 * keys) / 16 + 2 * 128 * 4096 / 2)
    # which is two query heads, their part of the output projection, one key and one value head
    assert found == 32 * 4096 * 128 * (2 + 2 + 1 + 1)


def test_the_projection_before_a_prediction_module_is_cut() -> None:
    """DeepSeek-V3: [2 * 7168, 7168] over four ranks; Megatron-LM eh_proj is column-parallel."""
    architecture = load_named("deepseek-v3")
    (stage,) = chunks(architecture, 1)
    plain = [replace(chunk, mtp_layers=0) for chunk in stage]
    module = [
        stage_params(architecture, stage, Shard(tp=tp, ep=8)).dense_ffn
        - stage_params(architecture, plain, Shard(tp=tp, ep=8)).dense_ffn
        for tp in (1, 4)
    ]
    assert module == [2 * 7168 * 7168, 2 * 7168 * 7168 / 4]


def test_weights_by_hand(tmp_path: Path) -> None:
    """Eight layers: attention 512 * (512 + 2 * 256) + 512 * 512, two norms, router 8 * 512.

    One of eight experts of 3 * 512 * 1024 on each rank; two tables of 4096 * 512.
    """
    (held,) = outcome(tmp_path).memory
    attention = 8 * (512 * 1024 + 512 * 512)
    small = 8 * (2 * 512 + 8 * 512) + 512
    experts, tables = 8 * 3 * 512 * 1024, 2 * 4096 * 512
    assert held.attention_weights == 2 * (attention + small)
    assert held.expert_weights == 2 * experts
    assert held.embedding_weights == 2 * tables
    dense_params = attention + small + tables
    assert held.gradients == 4 * (dense_params + experts)
    # 16 devices: dense states over 16, experts over 16 / 8
    assert held.optimizer_states == 12 * (dense_params / 16 + experts / 2)


@pytest.mark.parametrize(
    ("recompute", "per_row"), [("none", 512 + 3 * 1024), (["moe_act"], 512 + 2 * 1024), ("full", 0)]
)
def test_the_rank_that_keeps_most_in_all_layers_counts(
    tmp_path: Path, recompute: str | list[str], per_row: int
) -> None:
    """Not the sum of every layer's fullest rank: no rank is the fullest of all eight layers.

    A row of a gated expert keeps its input, gate and up, and their product, two bytes each; under
    an even load a rank has 2 * 1024 of the rows in each layer.
    """
    changes = {"training": {"recompute": recompute}}
    even = outcome(tmp_path, changes)
    skewed = outcome(tmp_path, {**changes, "routing": {"load": {"law": "lognormal", "cv": 1.0}}})
    by_rank = np.array([load.rank_rows for load in skewed.loads.values()])
    assert by_rank.shape == (8, 8)
    more = by_rank.sum(axis=0).max() - 8 * 2048
    assert 0 < more < by_rank.max(axis=1).sum() - 8 * 2048
    found = skewed.memory[0].activations - even.memory[0].activations
    assert found == pytest.approx(2 * per_row * more, abs=1)
