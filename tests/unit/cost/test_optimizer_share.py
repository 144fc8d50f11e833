"""A share of the optimizer on the host: bytes that stay and seconds of an update, by hand."""

from dataclasses import replace

import pytest

from moesim.cost.layout import Layout
from moesim.cost.optimizer import OptimizerRule, optimizer_rule, state_bytes, update_s
from moesim.cost.parameters import StageParams
from moesim.errors import ScenarioError
from moesim.spec.scenario import Scenario
from moesim.spec.validate import build
from moesim.spec.yaml_text import Document
from tests.unit.cost.machines import IDEAL, ROUND

PARAMS = StageParams(dense_ffn=800.0, routed_experts=400.0)
LAYOUT = Layout(
    tp=1, pp=1, vpp=1, cp=1, ep=2, etp=1, dp=8, sequence_parallel=True, schedule="1f1b",
    dispatcher="alltoall",
)  # fmt: skip
OWNED = 800 / 8 + 400 / 4
"""Parameters that a rank updates: dense ones over eight ranks, experts over four replicas."""


def _rule(offload: float) -> OptimizerRule:
    return optimizer_rule("adam", "bf16", "fp32", distributed=True, offload=offload)


@pytest.mark.parametrize(
    ("offload", "left"),
    [(0.0, 12 * OWNED), (0.25, 10 * OWNED), (0.5, 8 * OWNED), (0.75, 6 * OWNED), (1.0, 4 * OWNED)],
)
def test_what_stays_is_master_weights_and_the_moments_that_are_not_offloaded(
    offload: float, left: float
) -> None:
    assert state_bytes(PARAMS, _rule(offload), LAYOUT) == left


def test_update_is_the_share_on_the_device_and_then_the_share_over_the_link() -> None:
    """On the device 2 x 12 + 4 + 2 bytes per parameter, over the link 4 + 2."""
    slow = replace(ROUND, memory_bandwidth_bytes_per_s=1000.0, host_link_bytes_per_s=50.0)
    plain = replace(IDEAL, memory_fraction=0.5, kernel_launch_s=0.001, kernels=None)

    def seconds(offload: float) -> float:
        return update_s(PARAMS, _rule(offload), LAYOUT, slow, plain)

    on_device, over_link = 200 * 30 / 500, 200 * 6 / 50
    assert seconds(0.0) == pytest.approx(on_device + 0.001)
    assert seconds(1.0) == pytest.approx(over_link + 0.001)
    assert seconds(0.25) == pytest.approx(0.75 * on_device + 0.25 * over_link + 0.002)


def _scenario(offload: object) -> Scenario:
    data = {
        "name": "offload",
        "model": "mixtral-8x7b",
        "cluster": {"profile": "dgx-h100", "devices": 8},
        "training": {
            "sequence_length": 4096,
            "global_batch": 8,
            "optimizer": {"offload": offload},
        },
    }
    return build(Scenario, Document(data))


@pytest.mark.parametrize(("said", "share"), [(True, 1.0), (False, 0.0), (0.25, 0.25), (1, 1.0)])
def test_true_means_all_of_it(said: object, share: float) -> None:
    assert _scenario(said).training.optimizer.offload == share


@pytest.mark.parametrize("said", [1.5, -0.1, "half", 25])
def test_senseless_shares_are_errors(said: object) -> None:
    with pytest.raises(ScenarioError, match="true, false, or a share from 0 to 1"):
        _scenario(said)
