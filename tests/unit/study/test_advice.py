"""What would make a model fit: each suggestion, followed, does what it says."""

from pathlib import Path

import pytest

import moesim
from moesim.spec.load import load_scenario
from moesim.spec.training import RECOMPUTABLE
from tests.unit.study.scenarios import small


def test_a_model_that_fits_gets_no_advice(tmp_path: Path) -> None:
    result = moesim.run(small(tmp_path))
    assert result.fits
    assert result.changes == ()


def test_each_suggestion_does_what_it_says() -> None:
    result = moesim.run(load_scenario("mixtral-8x22b-too-big", ["baseline=[]"]))
    assert not result.fits
    fitting = [change for change in result.changes if change.fits]
    assert fitting
    for change in result.changes:
        followed = moesim.run(
            load_scenario("mixtral-8x22b-too-big", ["baseline=[]", *change.settings])
        )
        assert followed.fits == change.fits, change
        assert followed.outcome.peak_bytes == pytest.approx(change.peak_bytes), change
        assert change.saved_bytes == pytest.approx(result.outcome.peak_bytes - change.peak_bytes)
        if change.fits:  # simulated; otherwise the closed form, which ends differently
            assert followed.outcome.metrics.step_s == pytest.approx(change.step_s), change
        else:
            assert followed.outcome.metrics.step_s == pytest.approx(change.step_s, rel=0.15)


def test_several_changes_together_where_none_is_enough() -> None:
    """Each way, followed, does what it says, and each leaves out none of its changes."""
    wide = ["baseline=[]", "cluster.devices=128", "training.global_batch=1920",
            "parallel={pp: 1, ep: 64, dispatcher: deepep, dispatch_dtype: fp8}"]  # fmt: skip
    result = moesim.run(load_scenario("deepseek-v3-2048xh800", wide))
    fitting = [change for change in result.changes if change.fits]
    assert fitting
    assert not any(change.single for change in fitting)
    assert all(change.single for change in result.changes if not change.fits)
    need = result.outcome.peak_bytes
    for change in fitting:
        followed = moesim.run(load_scenario("deepseek-v3-2048xh800", [*wide, *change.settings]))
        assert followed.fits
        assert followed.outcome.peak_bytes == pytest.approx(need - change.saved_bytes)
        assert followed.outcome.metrics.step_s == pytest.approx(change.step_s)
    assert fitting == sorted(fitting, key=lambda change: change.step_s)
    assert "No single change is enough. Together these would make it fit" in result.html()


def test_every_module_that_the_model_has_is_among_the_suggestions(tmp_path: Path) -> None:
    """Scores that are kept, latent attention, shared and routed experts beside dense layers.

    Nothing keeps what the output projection makes: to compute it again saves nothing."""
    model = """
name: all-parts
source: made up for tests
hidden: 512
vocab: 4096
layers: 4
attention: {kind: mla, heads: 8, q_lora_rank: 128, kv_lora_rank: 64, qk_nope_head_dim: 64,
            qk_rope_head_dim: 32, v_head_dim: 64}
ffn: {width: 1024}
moe: {num_experts: 8, top_k: 2, expert_width: 512, shared_expert_width: 512}
dense_first_layers: 2
"""
    (tmp_path / "model.yaml").write_text(model, encoding="utf-8")
    scenario = """
model: model.yaml
cluster: {profile: dgx-h100, devices: 8}
parallel: {tp: 1, pp: 1, ep: 8, etp: 1}
training: {sequence_length: 8192, global_batch: 512, micro_batch: 64, attention_kernel: unfused}
"""
    path = tmp_path / "too-big.yaml"
    path.write_text(scenario, encoding="utf-8")
    result = moesim.run(load_scenario(path))
    assert not result.fits
    settings = {change.settings[0] for change in result.changes}
    assert {f"training.recompute=[{name}]" for name in RECOMPUTABLE if name != "proj"} <= settings
    assert "training.recompute=[proj]" not in settings
    by_name = {change.settings[0]: change.peak_bytes for change in result.changes}
    assert by_name["training.recompute=full"] == min(
        value for name, value in by_name.items() if name.startswith("training.recompute")
    )
