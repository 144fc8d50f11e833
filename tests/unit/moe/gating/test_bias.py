"""Bias balancing: the sign update flattens an uneven load, and leaves a flat one alone."""

import numpy as np
import pytest

from moesim.moe.choices import counts, parts_reached
from moesim.moe.gating.bias import BiasUpdate, balance_bias
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.table import choose

GATE = Gate(experts=32, top_k=4, groups=4, groups_per_token=2)
UPDATE = BiasUpdate(tokens=512)


def _load(gate: Gate, shares: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    found = choose("deepseek_v3", gate, shares, 40_000, generator=np.random.default_rng(99))
    assert parts_reached(found, 32, 4).max() <= 2
    load = counts(found, 32, 1)[0]
    return float(load.max() / load.mean())


def test_the_update_flattens_a_skewed_load() -> None:
    shares = np.random.default_rng(1).dirichlet(np.full(32, 1.0))
    made = balance_bias(GATE, shares, np.random.default_rng(2), UPDATE)
    assert made.cv <= 0.05
    assert made.steps % UPDATE.window == 0
    assert _load(GATE, shares) > 2.5
    assert _load(made.gate, shares) < 1.2


def test_popular_experts_get_the_smaller_bias() -> None:
    shares = np.linspace(1, 4, 32) / np.linspace(1, 4, 32).sum()
    bias = balance_bias(GATE, shares, np.random.default_rng(3), UPDATE).gate.bias
    assert np.corrcoef(bias, shares)[0, 1] < -0.9


def test_an_even_load_needs_no_bias() -> None:
    made = balance_bias(GATE, np.full(32, 1 / 32), np.random.default_rng(4), UPDATE)
    assert made.steps == UPDATE.window
    assert max(map(abs, made.gate.bias)) < 0.02


def test_a_step_moves_the_bias_by_the_speed_and_the_sign() -> None:
    """One step, one expert in all: b of the two experts that are always and never chosen."""
    gate = Gate(experts=2, top_k=1)
    shares = np.array([1.0, 0.0])
    update = BiasUpdate(tokens=16, speed=0.001, window=2, most_steps=2)
    made = balance_bias(gate, shares, np.random.default_rng(5), update)
    # biases 0 and -+ 0.001 averaged over the two steps
    assert made.gate.bias == pytest.approx((-0.0005, 0.0005))
    assert made.steps == 2
