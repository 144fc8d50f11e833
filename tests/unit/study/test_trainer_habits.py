"""What a trainer's code adds to the words of a case."""

from typing import Any

import pytest

from moesim.errors import ScenarioError
from moesim.spec.cases import Case
from moesim.spec.scenario import Scenario
from moesim.spec.validate import build
from moesim.spec.yaml_text import Document
from moesim.study.validate.options import Reading, read_overlap
from moesim.study.validate.sharding import lighter
from moesim.study.validate.trainers import Trainer, read_trainer, trainer_of


def _case(source: str, **options: Any) -> Case:
    return Case("one", "train_step", {"source": source, "options": options})


def _trainer(case: Case) -> Trainer:
    found = trainer_of(case)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("source", "fusions", "attention", "software"),
    [
        ("VIA-Research/vTrain:data", "megatron_2021", "unfused", "pytorch"),
        ("stanford-futuredata/megablocks:media", "megatron_2021", "unfused", "pytorch"),
        ("mosaicml/llm-foundry:scripts", "llm_foundry", "flash_1", "pytorch"),
        ("allenai/OLMoE:configs", "olmo", "flash_2", "pytorch"),
        ("NVIDIA/Megatron-LM:tests", "full", "fused", "megatron"),
    ],
)
def test_code_by_the_software_named(
    source: str, fusions: str, attention: str, software: str
) -> None:
    found = _trainer(_case(source))
    assert (found.fusions, found.attention, found.software) == (fusions, attention, software)


def _read(case: Case, precision: str) -> Reading:
    reading = Reading(training={"precision": precision})
    read_overlap(case, reading)
    read_trainer(case, reading, _trainer(case))
    return reading


def test_plain_data_parallelism() -> None:
    """Gradients of 16 bits after the backward pass, states not spread, in fp16."""
    found = _read(_case("arXiv 2205.05198"), "fp16").training
    assert found["overlap"] == {"grad_reduce": False}
    assert found["optimizer"] == {"distributed": False, "gradient_dtype": "bf16"}
    assert _read(_case("arXiv 2205.05198"), "bf16").training["optimizer"] == {"distributed": False}


def test_a_case_has_the_first_word() -> None:
    found = _read(_case("arXiv 2205.05198", overlap_grad_reduce=True), "fp16").training
    assert found["overlap"] == {"grad_reduce": True}
    assert "distributed" in found["optimizer"]


def test_one_bucket_waits_for_the_end() -> None:
    reading = Reading()
    read_overlap(_case("any", gradient_bucket=False), reading)
    assert reading.training["overlap"] == {"grad_reduce": False}


def test_states_are_spread_where_they_do_not_fit_otherwise() -> None:
    reading = _read(_case("VIA-Research/vTrain:data"), "fp16")
    reading.training |= {"micro_batch": 8, "recompute": "full"}
    assert lighter(reading)
    assert reading.training["optimizer"]["distributed"] is True
    assert not lighter(reading)


def test_passes_over_fp32_are_refused() -> None:
    data = {
        "model": "olmo-1b", "cluster": {"profile": "dgx-h100", "devices": 8},
        "training": {"sequence_length": 128, "global_batch": 8, "precision": "tf32",
                     "fusions": "olmo"},
    }  # fmt: skip
    with pytest.raises(ScenarioError, match="with precision tf32 only full is allowed"):
        build(Scenario, Document(data))
