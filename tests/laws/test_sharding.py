"""Full sharding trades time for memory: never faster, never larger, and free on free networks."""

import math
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from moesim.errors import ScenarioError
from moesim.study.outcome import Outcome
from moesim.study.resolve import Training
from moesim.study.simulate import simulate
from tests.laws.small_runs import (
    random_choice,
    resolved,
    with_network,
    without_curves,
    without_latency,
)


def _pairs(folder: Path, count: int, seed: int) -> list[tuple[Training, Training]]:
    """Return random runs without sharding, each with one that shards over all replicas."""
    random, found = Random(seed), list[tuple[Training, Training]]()
    while len(found) < count:
        changes, model = random_choice(random)
        changes["training"]["optimizer"] = {"distributed": True}
        changes["seed"] = 0
        try:
            plain = resolved(folder, changes, model)
            if plain.layout.dp == 1:
                continue
            sharded = resolved(folder, _sharded(changes, plain.layout.dp), model)
        except ScenarioError:
            continue
        found.append((_without_sums(without_curves(plain)), without_curves(sharded)))
    return found


def _without_sums(run: Training) -> Training:
    """What a rank does to gradients that it sums itself is no matter of the network."""
    return replace(run, job=replace(run.job, sums_gradients=False))


def _sharded(changes: dict[str, Any], ranks: int) -> dict[str, Any]:
    return {**changes, "parallel": {**changes["parallel"], "fsdp": ranks}}


def test_sharding_is_never_faster(tmp_path: Path) -> None:
    for plain, sharded in _pairs(tmp_path, 25, seed=3):
        assert _step_s(simulate(sharded)) >= _step_s(simulate(plain)) * (1 - 1e-9)


def test_less_than_two_layers_and_the_ends_are_kept_whole(tmp_path: Path) -> None:
    """Sharded weights, gradients and states never take more than whole ones do."""
    for plain, sharded in _pairs(tmp_path, 15, seed=4):
        for whole, share in zip(simulate(plain).memory, simulate(sharded).memory, strict=True):
            assert share.total - share.unsharded < whole.total


def test_sharding_on_a_free_network_costs_nothing(tmp_path: Path) -> None:
    for pair in _pairs(tmp_path, 10, seed=5):
        free = [
            simulate(without_latency(with_network(run, up=math.inf, out=math.inf))) for run in pair
        ]
        assert _step_s(free[1]) == pytest.approx(_step_s(free[0]), rel=1e-9)


def _step_s(made: Outcome) -> float:
    return made.metrics.step_s
