"""Context parallelism in a run: what is refused, and that long rings stick out."""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.outcome import Outcome
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate


def _outcome(folder: Path, parallel: str, model: str = "mixtral-8x7b") -> Outcome:
    file = folder / "cp.yaml"
    file.write_text(
        f"model: {model}\ncluster: {{profile: dgx-h100, devices: 16}}\nparallel: {parallel}\n"
        "training: {sequence_length: 32768, global_batch: 16}\n",
        encoding="utf-8",
    )
    return simulate(resolve(load_scenario(file)))


def _exposed_s(outcome: Outcome) -> float:
    return sum(one.seconds for one in outcome.breakdown if one.name == "context parallel")


def test_a_ring_hides_what_a_gather_exposes(tmp_path: Path) -> None:
    ring = _outcome(tmp_path, "{cp: 4, ep: 4}")
    gather = _outcome(tmp_path, "{cp: 4, ep: 4, cp_comm: all_gather}")
    assert _exposed_s(ring) < 0.2 * _exposed_s(gather)
    assert ring.metrics.step_s < gather.metrics.step_s
    assert ring.metrics.hfu_fraction == pytest.approx(
        gather.metrics.hfu_fraction * gather.metrics.step_s / ring.metrics.step_s
    )


@pytest.mark.parametrize(
    ("model", "parallel", "says"),
    [
        (
            "mixtral-8x7b", "{cp: 4, tp: 2, ep: 4, etp: 1, cp_comm: rings}",
            "must be one of 'ring', 'all_gather' or 'all_to_all'",
        ),
        (
            "qwen2-57b-a14b", "{cp: 8, ep: 8, cp_comm: all_to_all}",
            r"tp \* cp = 8 must divide the 28 attention heads",
        ),
        (
            "deepseek-v3.2", "{cp: 2, ep: 8, cp_comm: all_to_all}",
            "attention behind an index is not modelled",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_spread(tmp_path: Path, model: str, parallel: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        _outcome(tmp_path, parallel, model)
