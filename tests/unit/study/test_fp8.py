"""Recipes of fp8 that a device cannot do, or that have nothing to do."""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.study.resolve import resolve
from tests.unit.study.scenarios import small

FP8 = "training.precision=fp8"


def test_block_scales_need_units_for_them(tmp_path: Path) -> None:
    mxfp8 = "training.fp8_recipe=mxfp8"
    with pytest.raises(ScenarioError, match="mxfp8 needs matrix units with block scales"):
        resolve(small(tmp_path, "", FP8, mxfp8))
    run = resolve(small(tmp_path, "", FP8, mxfp8, "cluster.profile=dgx-b200"))
    assert run.job.shard.quantisation is not None
    assert not run.job.shard.quantisation.transposed


def test_a_recipe_without_fp8_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="fp8_recipe needs precision: fp8"):
        small(tmp_path, "", "training.fp8_recipe=delayed")


def test_hopper_copies_for_weight_gradients(tmp_path: Path) -> None:
    found = resolve(small(tmp_path, "", FP8)).job.shard.quantisation
    assert found is not None
    assert (found.recipe, found.transposed) == ("tensorwise", True)
