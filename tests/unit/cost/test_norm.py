"""The gradients' norm, by hand."""

from dataclasses import replace

import pytest

from moesim.cost.layout import Layout
from moesim.cost.optimizer import norm_s, optimizer_rule
from moesim.cost.parameters import StageParams
from tests.unit.cost.machines import IDEAL, ROUND

LAYOUT = Layout(tp=1, pp=1, vpp=1, cp=1, ep=2, etp=1, dp=4, sequence_parallel=True,
                schedule="1f1b", dispatcher="alltoall")  # fmt: skip
PARAMS = StageParams(attention=4000.0, routed_experts=2000.0)


@pytest.mark.parametrize(("distributed", "owned"), [(True, 4000 / 4 + 2000 / 2), (False, 6000)])
def test_a_rank_reads_the_gradients_that_it_updates_once(distributed: bool, owned: float) -> None:
    """fp32 gradients, 4 bytes each at 1 TB/s; without kernel launches."""
    rule = optimizer_rule("adam", "bf16", "fp32", distributed=distributed)
    ideal = replace(IDEAL, kernel_launch_s=0.0)
    assert norm_s(PARAMS, rule, LAYOUT, ROUND, ideal) == pytest.approx(4 * owned / 1e12)
