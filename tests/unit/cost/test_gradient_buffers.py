"""Passes over the gradients of a step, counted by hand."""

from dataclasses import replace

import pytest

from moesim.cost.gradient_buffers import buffer_passes_s
from moesim.cost.optimizer import optimizer_rule
from moesim.cost.parameters import StageParams
from tests.unit.cost.machines import IDEAL, ROUND, layout

PARAMS = StageParams(dense_ffn=800.0)


@pytest.mark.parametrize(
    ("dp", "moved_bytes"),
    [
        # 800 gradients of 4 bytes written and read; 800 master weights of 4 read
        (1, 800 * 8 + 800 * 4),
        # read and written once more to divide them by 4; each rank updates 200 weights
        (4, 800 * 16 + 200 * 4),
    ],
)
def test_gradients_are_zeroed_scaled_and_checked(dp: int, moved_bytes: float) -> None:
    rule = optimizer_rule("adam", "bf16", "fp32", distributed=True)
    found = buffer_passes_s(PARAMS, rule, layout(dp=dp), ROUND, IDEAL)
    assert found == pytest.approx(moved_bytes / 1e12)


def test_each_pass_is_a_launch() -> None:
    """Zeros, scale, check, copy of the weights."""
    rule = optimizer_rule("adam", "bf16", "fp32", distributed=True)
    software = replace(IDEAL, kernel_launch_s=1.0)
    found = buffer_passes_s(PARAMS, rule, layout(dp=2), ROUND, software)
    assert found == pytest.approx(4.0, rel=1e-6)
