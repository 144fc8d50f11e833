"""Memory-bound kernels: bytes by hand, the L2 cache, rows that are walked along."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.cost.curve_fit import fit_parameters
from moesim.cost.curves import Array, Chip
from moesim.cost.families.elementwise import (
    BYTES_PER_COLUMN,
    ELEMENTWISE,
    elementwise_bound_s,
    elementwise_s,
)

CHIP = Chip(
    name="round", vendor="nvidia", peak_flop_per_s={"bf16": 1e15},
    memory_bandwidth_bytes_per_s=4e12, compute_units=100, l2_bytes=5e7,
)  # fmt: skip
PLAIN = {
    "launch_s": 1e-6, "row_s": 0.0, "rows_per_unit": 8.0, "col_s": 0.0, "memory_excess": 0.0,
    "l2_slowness": 1.0,
}  # fmt: skip


def columns(**values: float) -> dict[str, Array]:
    return {name: np.array([float(value)]) for name, value in values.items()}


def test_bytes_at_bandwidth() -> None:
    samples = columns(rows=8192, cols=4096)
    seconds = elementwise_s(samples, CHIP, PLAIN, 6.0)[0]
    assert seconds == pytest.approx(1e-6 + 8192 * 4096 * 6 / 4e12)
    assert elementwise_bound_s(samples, CHIP, 6.0)[0] == pytest.approx(
        (8192 * 4096 * 6 - 1e8) / 4e12
    )


def test_a_single_long_row_is_walked_by_one_block() -> None:
    walk = PLAIN | {"col_s": 1e-9}
    one = elementwise_s(columns(rows=1, cols=10000), CHIP, walk, 4.0)[0]
    assert one == pytest.approx(1e-6 + 1e-5 + 40000 / 4e12)
    # 100 units take 8 rows each at a time: 1600 rows are walked in two goes
    many = elementwise_s(columns(rows=1600, cols=10000), CHIP, walk, 4.0)[0]
    assert many == pytest.approx(1e-6 + 2e-5 + 1600 * 40000 / 4e12)


def test_what_the_l2_cache_holds_may_move_faster() -> None:
    samples = columns(rows=100, cols=1000)
    cached = elementwise_s(samples, CHIP, PLAIN | {"l2_slowness": 0.1}, 4.0)[0]
    assert cached < elementwise_s(samples, CHIP, PLAIN, 4.0)[0]
    assert elementwise_bound_s(samples, CHIP, 4.0)[0] == 0.0


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 10**7), cols=st.integers(1, 10**6), by_rows=st.booleans())
def test_finite_above_the_bound_and_monotone(rows: int, cols: int, by_rows: bool) -> None:
    samples = columns(rows=rows, cols=cols)
    more = columns(rows=rows * 2, cols=cols) if by_rows else columns(rows=rows, cols=cols * 2)
    for family in ELEMENTWISE.values():
        parameters = family.start(CHIP, "bf16")
        seconds = family.physics(samples, CHIP, "bf16", parameters)[0]
        assert family.bound_s is not None
        assert np.isfinite(seconds)
        assert seconds > family.bound_s(samples, CHIP, "bf16")[0]
        assert family.physics(more, CHIP, "bf16", parameters)[0] >= seconds


def test_a_fit_finds_known_parameters() -> None:
    generator = np.random.Generator(np.random.Philox(key=4))
    samples = {
        "rows": np.exp2(generator.uniform(0, 15, 500)),
        "cols": np.exp2(generator.uniform(8, 15, 500)),
    }
    family = ELEMENTWISE["silu_and_mul"]
    truth = family.start(CHIP, "bf16") | {"launch_s": 4e-6, "memory_excess": 0.5}
    seconds = family.physics(samples, CHIP, "bf16", truth)
    found = fit_parameters(family, samples, seconds, CHIP, "bf16")
    assert found["launch_s"] == pytest.approx(4e-6, rel=0.02)
    assert found["memory_excess"] == pytest.approx(0.5, rel=0.05)


def test_every_operator_of_the_table_has_a_family() -> None:
    assert set(ELEMENTWISE) == set(BYTES_PER_COLUMN)
    assert all(family.table == "elementwise" for family in ELEMENTWISE.values())
