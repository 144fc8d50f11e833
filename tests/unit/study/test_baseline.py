"""Dense twins are equal in what they promise; baselines get a layout that fits."""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.model.named import load_named
from moesim.model.parameters import active_params, total_params
from moesim.study.baseline import dense_twin
from moesim.study.run import run
from tests.unit.study.scenarios import small


@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v3", "switch-base-128"])
def test_equal_active_params_up_to_the_router(name: str) -> None:
    architecture = load_named(name)
    twin = dense_twin(architecture, "active_params")
    assert not twin.is_moe
    # what is left between them: the routers, under a per cent of the active parameters
    assert 0 <= active_params(architecture) - total_params(twin) < 0.01 * total_params(twin)


def test_equal_total_params_up_to_the_router() -> None:
    architecture = load_named("mixtral-8x7b")
    twin = dense_twin(architecture, "total_params")
    # Mixtral's routers: 32 layers of [4096, 8]
    assert total_params(architecture) - total_params(twin) == 32 * 4096 * 8


def test_equal_flop_makes_up_for_the_router(tmp_path: Path) -> None:
    result = run(small(tmp_path, "baseline: {equal: flop}"))
    ours = result.outcome.metrics.model_flop_per_token
    theirs = result.baselines[0].outcome.metrics.model_flop_per_token
    assert theirs == pytest.approx(ours, rel=1e-3)
    assert result.baselines[0].relation == "equal FLOP per token"


def test_a_baseline_without_a_layout_gets_one_that_fits(tmp_path: Path) -> None:
    # 70 billion parameters need 18 bytes each at the most: never on one device, easily on 64
    result = run(small(tmp_path, "baseline: {model: llama-2-70b}", "cluster.devices=64",
                       "training.global_batch=64"))  # fmt: skip
    dense = result.baselines[0].outcome
    assert dense.fits
    assert dense.run.layout.tp * dense.run.layout.pp > 1


def test_several_baselines_stand_in_order(tmp_path: Path) -> None:
    text = "baseline:\n  - equal: active_params\n  - model: qwen3-8b\n    parallel: {tp: 8}\n"
    result = run(small(tmp_path, text))
    names = [one.outcome.run.architecture.name for one in result.baselines]
    assert names == ["dense twin of olmoe-1b-7b", "qwen3-8b"]
    assert result.baselines[1].outcome.run.layout.tp == 8
    assert [role for role, _ in result.runs] == ["model", "baseline", "baseline 2"]


def test_a_dense_model_has_no_twin(tmp_path: Path) -> None:
    scenario = small(
        tmp_path, "baseline: {equal: flop}", "model=qwen3-8b", "parallel.ep=1", "parallel.tp=2"
    )
    with pytest.raises(ScenarioError, match="no experts to derive"):
        run(scenario)
