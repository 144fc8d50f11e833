"""Every row of the computed drop tables, Switch-C as released, and a sum without a window."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from scipy import stats

from moesim.moe import drops
from moesim.moe.capacity import CapacityRule, slots
from tests.shared_files import shared


def _table(name: str) -> Any:
    return YAML(typ="safe").load(shared("published/moe-semantics.yaml").read_text())[name]


def _factors(row: dict[str, float]) -> Iterator[tuple[float, float]]:
    return ((float(key), value) for key, value in row.items() if key != "cv")


def test_every_row_of_the_uniform_table() -> None:
    """Eight decimals are printed, so half of the last one is all that a row may be off."""
    table, rows = _table("computed_drop_uniform"), 0
    for key, row in {**table["top1"], **table["topk"]}.items():
        experts, tokens, k = map(int, re.findall(r"\d+", key.replace("_k", "_")))
        for factor, expected in _factors(row):
            capacity = math.ceil(k * tokens * factor / experts)
            assert abs(drops.uniform(tokens, experts, k, capacity) - expected) < 5.1e-9
            rows += 1
    assert rows == 141


def test_every_row_of_the_dirichlet_table() -> None:
    table, rows = _table("computed_drop_dirichlet_multinomial")["rows"], 0
    for key, row in table.items():
        experts, tokens = map(int, re.findall(r"\d+", key)[:2])
        concentration = float(key.split("_a")[1])
        assert drops.dirichlet_cv(experts, concentration) == pytest.approx(row["cv"], abs=5.1e-5)
        for factor, expected in _factors(row):
            capacity = math.ceil(tokens * factor / experts)
            found = drops.dirichlet(tokens, experts, 1, capacity, concentration)
            assert abs(found - expected) < 5.1e-7  # six decimals are printed
            rows += 1
    assert rows == 120


@pytest.mark.parametrize(
    ("size", "expected"),
    [  # experts, group tokens, factor, minimum; dropped per cent under uniform routing
        pytest.param((2048, 2048, 1.0, 2), 10.4, id="switch_c as released"),
        pytest.param((128, 8192, 1.25, 4), 0.13, id="switch_base e128"),
        pytest.param((128, 4096, 1.25, 4), 0.72, id="switch_large"),
    ],
)
def test_released_switch_configurations(size: tuple[int, int, float, int], expected: float) -> None:
    experts, tokens, factor, minimum = size
    rule = CapacityRule(formula="flaxformer", factor=factor, min_slots=minimum)
    capacity = slots(rule, tokens, experts, 1)
    decimals = len(str(expected).split(".")[1])
    assert round(100 * drops.uniform(tokens, experts, 1, capacity), decimals) == expected


@pytest.mark.parametrize(
    "size",
    [(10**6, 256, 8, 31_250), (10**6, 8, 1, 125_500), (4096, 64, 6, 0), (777, 5, 4, 650),
     (50, 8, 7, 49), (1, 4, 2, 0)],
)  # fmt: skip
def test_window_loses_nothing_of_the_uniform_sum(size: tuple[int, int, int, int]) -> None:
    tokens, experts, k, capacity = size
    n = np.arange(tokens + 1)
    lost = np.maximum(n - capacity, 0) * stats.binom.pmf(n, tokens, k / experts)
    expected = experts / (k * tokens) * lost.sum()
    assert drops.uniform(tokens, experts, k, capacity) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "size", [(10**6, 64, 15_625, 1.0), (65_536, 256, 256, 0.05), (4096, 8, 520, 500.0)]
)
def test_dirichlet_sum_at_both_ends_of_the_concentration(
    size: tuple[int, int, int, float],
) -> None:
    tokens, experts, capacity, a = size
    n = np.arange(tokens + 1)
    lost = np.maximum(n - capacity, 0) * stats.betabinom.pmf(n, tokens, a, (experts - 1) * a)
    expected = experts / tokens * lost.sum()
    assert drops.dirichlet(tokens, experts, 1, capacity, a) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "size",
    [(50, 16, 3, 4, 40), (300, 64, 6, 8, 225), (20, 8, 8, 2, 60), (64, 8, 2, 8, 16),
     (10, 8, 6, 2, 30)],
)  # fmt: skip
def test_device_budget_against_loads_added_token_by_token(
    size: tuple[int, int, int, int, int],
) -> None:
    tokens, experts, k, devices, budget = size
    copies = stats.hypergeom(experts, experts // devices, k).pmf(np.arange(k + 1))
    load = np.ones(1)
    for _ in range(tokens):
        load = np.convolve(load, copies)
    lost = np.maximum(np.arange(len(load)) - budget, 0) @ load
    found = drops.device_uniform(tokens, experts, k, devices=devices, budget=budget)
    assert found == pytest.approx(devices / (k * tokens) * lost, abs=1e-12)


def test_one_expert_per_device_has_the_budget_of_an_expert() -> None:
    found = drops.device_uniform(10**5, 8, 2, devices=8, budget=25_000)
    assert found == pytest.approx(drops.uniform(10**5, 8, 2, 25_000), rel=1e-9)
