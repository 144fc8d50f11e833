"""Memory between steps of cases that do not say their batch: by hand, with shares offloaded."""

from typing import Any

import pytest

from moesim.study.validate.run import records_of
from tests.unit.study.validate.made_up import case, case_file

DENSE: dict[str, Any] = {
    "cls": "dense", "layers": 2, "hidden": 1024, "vocab": 32000, "dense_ffn": 4096, "gated": True,
    "attn": {"heads": 8, "kv_heads": 8, "head_dim": 128},
}  # fmt: skip
PARAMS = 2 * (4 * 1024**2 + 3 * 1024 * 4096 + 2 * 1024) + 2 * 32000 * 1024 + 1024


@pytest.mark.parametrize("percent", [0, 25, 100])
def test_weights_gradients_and_the_states_that_are_not_offloaded(percent: int) -> None:
    """Two bytes of weight, four of gradient, and an eighth on each rank of four of master
    weight and eight of moments, which an offloaded share leaves."""
    measured = {"mem_allocated_gb": 1.0, "step_time_s": 0.5}
    options = {"optimizer_cpu_offload_pct": percent}
    plain = case(model="dense", parallel={"tp": 1}, measured=measured, options=options)
    steady, step = records_of(plain, case_file({"dense": DENSE}))
    states = (4 + 8 * (1 - percent / 100)) / 8
    assert steady.metric == "mem_allocated_gb"
    assert steady.predicted == pytest.approx(PARAMS * (6 + states) / 1e9, rel=1e-3)
    assert (step.metric, step.status) == ("step_time_s", "skipped")
    assert step.reason == "no sequence length is given"
