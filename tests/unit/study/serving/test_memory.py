"""Weights and cache of a replica, against published sizes, start-up logs and hand calculation."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from moesim.cost.serving.capacity import activation_bytes
from moesim.cost.serving.deployment import Cut, Drafting
from moesim.cost.serving.memory import stage_cache_bytes, stage_layers, stage_weights, weights
from moesim.errors import ScenarioError
from moesim.model.parameters import total_params
from tests.unit.study.serving.served import served

GB = 1e9
LOGGED = "engine: {max_sequences: 128, token_budget: 2048, memory_fraction: 0.9, block_tokens: 16}"


@pytest.mark.parametrize(
    ("model", "tp", "tokens"),
    [("mixtral-8x7b", 2, 440176), ("llama-2-7b", 1, 119408), ("llama-2-70b", 4, 501712)],
)
def test_cache_of_vllm_s_start_up_log(tmp_path: Path, model: str, tp: int, tokens: int) -> None:
    """vLLM 0.15.1 on H100, memory fraction 0.9 (case vllm-kv-capacity-h100-dev)."""
    run = served(tmp_path, model, devices=tp, serving=f"{LOGGED}\nparallel: {{tp: {tp}}}")
    assert run.memory.tokens == pytest.approx(tokens, rel=0.05)


def test_sixteen_bit_weights_are_two_bytes_each(tmp_path: Path) -> None:
    """On one device nothing is copied."""
    on = served(tmp_path, "llama-2-7b").deployment
    assert weights(on).total == 2 * total_params(on.architecture)


def test_deepseek_v3_in_fp8_is_of_the_671_gb_class(tmp_path: Path) -> None:
    """671 G parameters of a byte each, the two tables of 129280 x 7168 and routers in two."""
    keys = "formats: {weights: fp8_block128}\nparallel: {tp: 8, ep: 8}"
    on = served(tmp_path, "deepseek-v3", devices=8, cluster="hgx-h200", serving=keys).deployment
    single = weights(replace(on, cut=Cut()))
    assert single.total == pytest.approx(671.0 * GB + 2 * 129280 * 7168, rel=0.003)


def test_latent_projections_are_on_every_rank(tmp_path: Path) -> None:
    """61 layers of 7168 x (1536 + 512 + 64) lie 8 times on 8 ranks."""
    keys = "formats: {weights: fp8_block128}\nparallel: {tp: 8, ep: 8}"
    on = served(tmp_path, "deepseek-v3", devices=8, cluster="hgx-h200", serving=keys).deployment
    alone = weights(replace(on, cut=Cut())).attention
    down = 61 * 7168 * (1536 + 512 + 64)
    assert weights(on).attention == pytest.approx((alone - down) / 8 + down)
    cached = 61 * 2 * 576
    assert stage_cache_bytes(on) == [cached]


def test_key_heads_are_copied_beyond_their_number(tmp_path: Path) -> None:
    """Qwen3-30B-A3B has 4 key/value heads of 128: 8 ranks hold one each, as 4 do."""
    on = served(tmp_path, "qwen3-30b-a3b", devices=8, serving="parallel: {tp: 8}").deployment
    four = replace(on, cut=replace(on.cut, tp=4))
    assert stage_cache_bytes(on) == stage_cache_bytes(four) == [48 * 2 * 128 * 2]


def test_switch_c_fits_one_node_in_less_than_a_bit(tmp_path: Path) -> None:
    """QMoE, table 6: 3142 GB become 158.6; the published 160 GB is an upper bound."""
    keys = "formats: {experts: qmoe}\nengine: {batching: whole_prompts}\nparallel: {tp: 8}"
    run = served(tmp_path, "switch-c-2048", devices=8, serving=keys)
    whole = weights(replace(run.deployment, cut=Cut()))
    assert whole.total == pytest.approx(158.6 * GB, rel=0.02)
    assert run.memory.blocks > 0
    wide = replace(run.deployment, formats=replace(run.deployment.formats, experts="bf16"))
    assert weights(replace(wide, cut=Cut())).total == pytest.approx(3142 * GB, rel=0.02)


def test_stages_hold_what_lies_on_them(tmp_path: Path) -> None:
    """80 layers on 3 stages: 26 + 27 + 27 in vLLM's order is 27, 27, 26: the last one fewer."""
    on = served(tmp_path, "llama-2-70b", devices=8, serving="parallel: {tp: 8}").deployment
    three = replace(on, cut=Cut(pp=3))
    assert stage_layers(three) == [27, 27, 26]
    assert sum(one.total for one in stage_weights(three)) == 2 * total_params(on.architecture)
    assert stage_cache_bytes(three) == [27 * 4096, 27 * 4096, 26 * 4096]


def test_a_draft_module_is_one_more_layer(tmp_path: Path) -> None:
    """DeepSeek-V3's module has 11.5 G parameters of its own (model card: 14 G with its tables)."""
    keys = "formats: {weights: fp8_block128}\nparallel: {tp: 8, ep: 8}"
    on = served(tmp_path, "deepseek-v3", devices=8, cluster="hgx-h200", serving=keys).deployment
    drafting = Drafting(tokens=1, expected=Fraction(9, 5))
    single = weights(replace(on, cut=Cut(), drafting=drafting))
    assert single.drafts == pytest.approx((14.0 * GB - 2 * 129280 * 7168), rel=0.05)


def test_activations_of_a_dense_layer_by_hand(tmp_path: Path) -> None:
    """Llama-2-7B, 2048 tokens: two streams of 4096, gate and up of 11008 each, their product."""
    on = served(tmp_path, "llama-2-7b").deployment
    assert activation_bytes(on, 2048, 128) == 2048 * 2 * (2 * 4096 + 3 * 11008)


def test_what_does_not_fit_says_how_much_is_missing(tmp_path: Path) -> None:
    """Mixtral's 93.4 GB and one H100: no block, and at least the weights beyond 0.92 of it."""
    run = served(tmp_path, "mixtral-8x7b")
    assert run.memory.blocks == 0
    assert run.memory.missing > 93.4 * GB - 0.92 * 80 * 2**30


def test_qmoe_is_for_experts_alone(tmp_path: Path) -> None:
    """The code was made for experts."""
    with pytest.raises(ScenarioError, match="experts alone"):
        served(tmp_path, "switch-c-2048", serving="formats: {dense: qmoe}")
