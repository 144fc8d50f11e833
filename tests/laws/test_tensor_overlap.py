"""Tensor-parallel overlap: never slower than none, never faster than compute."""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.outcome import Outcome
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate


def _outcome(folder: Path, parallel: str, overlap: str) -> Outcome:
    file = folder / "tensor.yaml"
    file.write_text(
        f"model: olmo-1b\ncluster: {{profile: dgx-h100, devices: 8}}\nparallel: {parallel}\n"
        "training: {sequence_length: 2048, global_batch: 16, cuda_graph: full, "
        f"overlap: {{tensor_parallel: {overlap}}}}}\n",
        encoding="utf-8",
    )
    return simulate(resolve(load_scenario(file)))


@pytest.mark.parametrize("parallel", ["{tp: 2}", "{tp: 8}", "{tp: 4, pp: 2}"])
def test_overlap_stays_between_its_limits(tmp_path: Path, parallel: str) -> None:
    plain, beside = (_outcome(tmp_path, parallel, word) for word in ("false", "true"))
    assert beside.metrics.step_s < plain.metrics.step_s
    exposed_s = sum(one.seconds for one in plain.breakdown if one.name == "tensor parallel")
    assert exposed_s > 0
    assert plain.metrics.step_s - beside.metrics.step_s <= exposed_s * (1 + 1e-9)


@pytest.mark.parametrize("parallel", ["{tp: 1}", "{tp: 2, sequence_parallel: false}"])
def test_nothing_to_overlap_is_an_error(tmp_path: Path, parallel: str) -> None:
    with pytest.raises(ScenarioError, match=r"needs .* above 1 with sequence_parallel"):
        _outcome(tmp_path, parallel, "true")
