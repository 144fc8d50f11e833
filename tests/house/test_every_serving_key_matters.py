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


def leaves(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the keys below `kind` that hold a value."""
    for name, field in kind.model_fields.items():
        inner = list(models_in(field.annotation))
        for one in inner:
            yield from leaves(one, f"{prefix}{name}.")
        if not inner:
            yield prefix + name


KEYS = sorted(set(leaves(ServingScenario)) - PROSE)


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
    folder = tmp_path_factory.mktemp("keys")
    for name, shift in (("a", 0), ("b", 1)):
        lengths = "\n".join(str(2 + number % 4 + shift) for number in range(8))
        (folder / f"lengths-{name}.csv").write_text(f"{lengths}\n", encoding="utf-8")
        rows = "\n".join(
            f"2023-11-16 18:00:{0.1 * k:06.3f},{100 + 50 * shift + k},{10 + k % 7}"
            for k in range(40)
        )
        head = "TIMESTAMP,ContextTokens,GeneratedTokens"
        (folder / f"trace-{name}.csv").write_text(f"{head}\n{rows}\n", encoding="utf-8")
    file = folder / "base.yaml"
    file.write_text(json.dumps(BASE), encoding="utf-8")
    traced = {**BASE, "serving": {"workload": {"trace": {"file": "trace-a.csv"}}}}
    (folder / "traced.yaml").write_text(json.dumps(traced), encoding="utf-8")
    return file


def change_of(key: str) -> str:
    """Return the key whose change stands for this one: outputs are as prompts, twins as models."""
    return key.replace("workload.output.", "workload.prompt.")


@pytest.mark.parametrize("key", KEYS)
def test_the_key_matters(base: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)  # where settings name files
    change = CHANGES[change_of(key)]
    side = "prompt" if ".prompt." in key else "output"
    under = tuple(one.replace("workload.prompt=", f"workload.{side}=") for one in change.under)
    name = (change.key or key).replace("workload.prompt", f"workload.{side}")
    file = base
    if under and under[0].endswith(".yaml"):
        file, under = base.with_name(under[0]), under[1:]
    before, after = outcome(file, *under), outcome(file, *under, f"{name}={change.value}")
    assert json.dumps(before) != json.dumps(after)


def test_another_version_is_said_in_the_report(base: Path) -> None:
    result = serve(load_serving(base, ["serving.engine.version='0.9'"]))
    assert any("0.9" in line for line in result.summary()["assumptions"])


def test_no_change_is_left_over() -> None:
    assert set(CHANGES) == {change_of(key) for key in KEYS}
