"""What trainers on TPUs do by default, read into scenarios; one-hot masks need slots."""

from pathlib import Path
from typing import Any

import pytest

from moesim.errors import ScenarioError
from moesim.model.named import load_named
from moesim.spec.cases import Case
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate
from moesim.study.validate.options import Reading
from moesim.study.validate.tpu import (
    circular_pipeline,
    counted_flop_per_token,
    mesh_habits,
    software_of,
)
from tests.unit.study.scenarios import small


def _case(hardware: str, **cut: Any) -> Case:
    return Case("one", "train_step", {"hardware": hardware, "parallel": cut})


def test_software() -> None:
    assert software_of(_case("tpu-v6e", pdb=4), "megatron") == "maxtext"
    assert software_of(_case("tpu-v3", cores=32), "megatron") == "mesh-tensorflow"
    assert software_of(_case("h100-hgx", pdb=4), "pytorch") == "pytorch"


def _chunks(hardware: str, layers: int, cut: dict[str, int], **read: int) -> int | None:
    reading = Reading(parallel=dict(read))
    circular_pipeline(_case(hardware, **cut), reading, layers)
    return reading.parallel.get("vpp")


def test_pipelines_come_round_once_per_layer_of_a_stage() -> None:
    """128 layers on 16 stages: 8 rounds."""
    cut = {"tokens_per_device": 2048}
    assert _chunks("tpu-v6e", 128, cut, pp=16) == 8
    assert _chunks("tpu-v6e", 128, cut) is None
    assert _chunks("tpu-v6e", 16, cut, pp=16) is None
    assert _chunks("tpu-v6e", 100, cut, pp=16) is None
    assert _chunks("tpu-v6e", 128, cut, pp=16, vpp=4) == 4
    assert _chunks("h100-hgx", 128, cut, pp=16) is None


def test_mesh_tensorflow() -> None:
    dense, sparse = Reading(), Reading(routing={"capacity": {"factor": 1.25, "pad": True}})
    assert mesh_habits(dense)["attention_kernel"] == "unfused_fp32"
    assert "permutation" not in mesh_habits(dense)
    assert mesh_habits(sparse)["permutation"] == "one_hot"
    assert sparse.routing["capacity"] == {
        "factor": 1.25, "pad": True, "formula": "switch", "group_tokens": 1024,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "length", "tflop_per_s", "tokens_per_s"),
    [
        ("llama-3.1-8b", 8192, 417.397, 7207.34),
        ("llama-3.1-70b", 8192, 462.297, 960.248),
        ("llama-2-70b", 4096, 402.274, 905.021),
        ("mixtral-8x7b", 4096, 302.311, 3645.2),
        ("mixtral-8x22b", 4096, 332.463, 1326.31),
    ],
)
def test_maxtext_counts_masked_pairs(
    model: str, length: int, tflop_per_s: float, tokens_per_s: float
) -> None:
    """Published rates of tpu-recipes @c8cfe2f6: their ratio is what MaxText counts per token."""
    counted = counted_flop_per_token(load_named(model), length)
    assert counted == pytest.approx(tflop_per_s * 1e12 / tokens_per_s, rel=0.002)


def test_masks_need_slots(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"training.permutation.*give routing.capacity"):
        resolve(small(tmp_path, "", "training.permutation=one_hot"))


def test_masks_cost_time_and_are_shown(tmp_path: Path) -> None:
    capacity = "routing.capacity={factor: 1, pad: true}"
    plain = simulate(resolve(small(tmp_path, "", capacity)))
    masked = simulate(resolve(small(tmp_path, "", capacity, "training.permutation=one_hot")))
    assert masked.metrics.step_s > plain.metrics.step_s
    assert "dispatch masks" in {share.name for share in masked.breakdown}
    assert masked.metrics.model_flop_per_token == plain.metrics.model_flop_per_token
