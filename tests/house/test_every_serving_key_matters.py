"""H9 for serving: each key of a scenario changes a result, or an error names it.

The keys are read from the schema classes, so a new key fails here until it has a change.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from moesim.errors import ScenarioError
from moesim.spec.load import load_serving
from moesim.spec.serving.scenario import ServingScenario
from moesim.spec.validate import models_in
from moesim.study.serving.result import ServingResult
from moesim.study.serving.run import serve
from tests.house.serving_changes import CHANGES

BASE: dict[str, Any] = {
    "model": "olmoe-1b-7b",
    "cluster": {"profile": "dgx-h100", "devices": 4},
    "serving": {
        "workload": {
            "arrivals": "poisson",
            "rate": "20 /s",
            "requests": 60,
            "prompt": 500,
            "output": 50,
        }
    },
}
PROSE = {"name", "description"}
REPORTED_ONLY = {"serving.engine.version"}
"""Other versions run with the defaults of the one that moesim knows, which the report says."""


def leaves(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the keys below `kind` that hold a value."""
    for name, field in kind.model_fields.items():
        inner = list(models_in(field.annotation))
        for one in inner:
            yield from leaves(one, f"{prefix}{name}.")
        if not inner:
            yield prefix + name


KEYS = sorted(set(leaves(ServingScenario)) - PROSE - REPORTED_ONLY)


def figures(result: ServingResult) -> Any:
    """Return the figures of a result, without the scenario and what is merely named."""
    summary = result.summary()
    runs = [summary["model"], *summary["baselines"]]
    kept = ("metrics", "memory", "curve", "iteration_s_by_group", "devices")
    return [summary["fits"], summary["meets_slo"], [{k: one[k] for k in kept} for one in runs]]


def outcome(file: Path, *settings: str) -> Any:
    """Return the figures of a run, or the keys that its error names."""
    try:
        return figures(serve(load_serving(file, settings)))
    except ScenarioError as error:
        return [problem.path for problem in error.problems]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "base.yaml"
    file.write_text(json.dumps(BASE), encoding="utf-8")
    return file


def change_of(key: str) -> str:
    """Return the key whose change stands for this one: outputs are as prompts, twins as models."""
    return key.replace("workload.output.", "workload.prompt.")


@pytest.mark.parametrize("key", KEYS)
def test_the_key_matters(base: Path, key: str) -> None:
    change = CHANGES[change_of(key)]
    side = "prompt" if ".prompt." in key else "output"
    under = tuple(one.replace("workload.prompt=", f"workload.{side}=") for one in change.under)
    name = (change.key or key).replace("workload.prompt", f"workload.{side}")
    before, after = outcome(base, *under), outcome(base, *under, f"{name}={change.value}")
    assert json.dumps(before) != json.dumps(after)


def test_another_version_is_said_in_the_report(base: Path) -> None:
    result = serve(load_serving(base, ["serving.engine.version='0.1'"]))
    assert any("vllm 0.1" in line for line in result.summary()["assumptions"])


def test_no_change_is_left_over() -> None:
    assert set(CHANGES) == {change_of(key) for key in KEYS}
