"""What a rank of a stage holds: parameters, optimizer states, micro-batches in flight."""

from pathlib import Path

import pytest

from moesim.cost.layout import Layout
from moesim.cost.optimizer import optimizer_rule, owned_params, state_bytes, update_s
from moesim.cost.parameters import StageParams, stage_params
from moesim.cost.pipeline import chunks
from moesim.model.named import load_named
from moesim.model.parameters import total_params
from moesim.model.shapes import Shard
from tests.laws.small_runs import dense, outcome
from tests.unit.cost.machines import IDEAL, ROUND

PARAMS = StageParams(attention=100.0, routed_experts=1000.0)


def _layout(**degrees: int) -> Layout:
    every = {"tp": 1, "pp": 1, "vpp": 1, "cp": 1, "ep": 1, "etp": 1, "dp": 8, **degrees}
    return Layout(sequence_parallel=True, schedule="1f1b", dispatcher="alltoall", **every)


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
    of 1024: norms 4, qkv 2, queries 2, keys and values 2, output 2, FFN 2 + 8 + 4 = 26 sbh.
    """
    made = outcome(tmp_path, {"parallel": {"pp": 4, "ep": 1}}, dense(1024))
    sbh = 1024 * 512
    kept = [stage.activations for stage in made.memory]
    assert kept[1] == 3 * 2 * 26 * sbh
    assert kept[2] == 2 * 2 * 26 * sbh
    assert kept[0] == pytest.approx(4 * 2 * 26 * sbh)  # the embedding keeps nothing
    # the last one holds a single micro-batch, and final norm, its output and fp32 logits
    assert kept[3] == 2 * 26 * sbh + 4 * sbh + 1024 * 4096 * 4


def test_full_recomputation_brings_one_layer_back(tmp_path: Path) -> None:
    """Each of 8 layers keeps 2 sbh; while one runs again it holds 24 more; and the logits."""
    changes = {"parallel": {"ep": 1}, "training": {"recompute": "full"}}
    (held,) = outcome(tmp_path, changes, dense(1024)).memory
    sbh = 1024 * 512
    assert held.activations == 8 * 2 * sbh + 4 * sbh + 1024 * 4096 * 4
    assert held.working_set == 24 * sbh


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
