"""`moesim run --step-by-step`: every decode step on its own, and the same result (law 11)."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moesim.cli.main import app
from moesim.spec.load import load_serving
from moesim.study.serving.gaps import columns
from moesim.study.serving.run import serve
from moesim.study.serving.simulate import ServingOutcome

ONE = """
model: olmoe-1b-7b
cluster: {profile: dgx-h100, devices: 1}
serving:
  workload:
    rate: 30 /s
    requests: 120
    prompt: {law: uniform, low: 10, high: 900}
    output: {law: lognormal, mean: 60, cv: 1}
"""
SEVERAL = ONE.replace("devices: 1", "devices: 4").replace(
    "serving:\n", "serving:\n  cluster: {router: least_outstanding}\n"
)
APART = ONE.replace("devices: 1", "devices: 4").replace(
    "serving:\n",
    "serving:\n  cluster:\n    disaggregation: prefill_decode\n"
    "    prefill: {replicas: 2}\n    decode: {replicas: 2}\n",
)
LOCKSTEP = ONE.replace("devices: 1", "devices: 4").replace(
    "serving:\n", "serving:\n  parallel: {dp: 4, ep: 4}\n"
)


def _steps(outcome: ServingOutcome) -> list[int]:
    return [int(columns(log)["steps"].sum()) for log in outcome.logs]


@pytest.mark.parametrize("text", [ONE, SEVERAL, APART, LOCKSTEP])
def test_stepping_gives_the_result_of_skipping(tmp_path: Path, text: str) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(text, encoding="utf-8")
    scenario = load_serving(file)
    skipped, single = (serve(scenario, step_by_step=way) for way in (False, True))
    one, other = skipped.model.outcome, single.model.outcome
    assert _steps(one) == _steps(other)
    assert max(columns(one.logs[-1])["steps"]) > 1
    assert all(max(columns(log)["steps"], default=1) == 1 for log in other.logs)
    for column in ("arrival", "scheduled", "first", "finish", "preemptions"):
        assert getattr(one.requests, column) == getattr(other.requests, column)
    assert skipped.model.curve == single.model.curve
    if text is not LOCKSTEP:  # of steps that wait for other ranks, gaps are taken as equal
        assert skipped.summary() == single.summary()


def test_the_command_prints_the_same_result(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(ONE, encoding="utf-8")
    shown = [
        CliRunner().invoke(app, ["run", str(file), "--json", *more])
        for more in ((), ("--step-by-step",))
    ]
    assert [one.exit_code for one in shown] == [0, 0]
    assert json.loads(shown[0].stdout) == json.loads(shown[1].stdout)


def test_training_has_no_steps_to_skip() -> None:
    done = CliRunner().invoke(app, ["run", "mixtral-8x7b-64xh100", "--step-by-step"])
    assert done.exit_code == 2
    assert "--step-by-step is for serving" in done.output
