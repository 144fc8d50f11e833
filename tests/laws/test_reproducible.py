"""Law 5: same scenario, seed and version give the same bytes; the seed matters where drawn."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moesim.study.outcome import Outcome
from tests.laws.small_runs import outcome, write

RANDOM: dict[str, Any] = {
    "seed": 3,
    "parallel": {"pp": 2},
    "training": {"steps": 2},
    "routing": {"load": {"law": "dirichlet", "cv": 0.7}, "capacity": {"factor": 1.25}},
}

PROGRAM = """
import hashlib, sys
from moesim.spec.load import load_scenario
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate
o = simulate(resolve(load_scenario(sys.argv[1])))
text = repr((o.metrics, o.steps, o.breakdown, o.memory, o.stages, o.loads, o.slices))
print(hashlib.sha256(text.encode()).hexdigest())
"""


def _digest(made: Outcome) -> str:
    parts = (
        made.metrics, made.steps, made.breakdown, made.memory, made.stages, made.loads, made.slices
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def test_the_same_scenario_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    digest = _digest(outcome(tmp_path, RANDOM))
    assert digest == _digest(outcome(tmp_path, RANDOM))
    path = write(tmp_path, RANDOM)
    other = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": other},
    )  # fmt: skip
    assert found.stdout.strip() == digest


@pytest.mark.parametrize("law", ["uniform", "dirichlet", "lognormal"])
def test_another_seed_draws_other_loads(tmp_path: Path, law: str) -> None:
    load = {"law": law, **({} if law == "uniform" else {"cv": 0.5})}
    digests = {
        _digest(outcome(tmp_path, {"seed": seed, "routing": {"load": load}})) for seed in range(3)
    }
    assert len(digests) == 3


def test_the_seed_changes_nothing_where_nothing_is_drawn(tmp_path: Path) -> None:
    assert len({_digest(outcome(tmp_path, {"seed": seed})) for seed in range(3)}) == 1


def test_steps_and_layers_draw_apart(tmp_path: Path) -> None:
    made = outcome(tmp_path, RANDOM)
    assert made.steps[0].dropped != made.steps[1].dropped
    assert len({load.expert_imbalance for load in made.loads.values()}) == len(made.loads)
    # more steps leave those before as they are
    more = outcome(tmp_path, {**RANDOM, "training": {"steps": 3}})
    assert more.steps[:2] == made.steps
