"""Experts in QMoE's code: small in memory, but decoded little faster than bf16 is read."""

import numpy as np
import pytest

from moesim.cost.serving.deployment import Cut, Formats
from moesim.cost.serving.experts import experts_s
from moesim.model.architecture import MoeFfn
from tests.unit.cost.serving.deployments import deployment


def test_coded_experts_are_read_a_third_faster_than_bf16() -> None:
    """QMoE, section 5.3: up to 35 % faster than bf16; one token reads one expert of Switch-C.

    2 * 2080 * 6144 weights of 2 / 1.35 bytes at the assumed share of the bandwidth, and launches.
    """
    on = deployment("switch-c-2048", Cut(), Formats(experts="qmoe"), profile="rtx-a6000-8")
    ffn = on.architecture.decoder[0].layer.ffn
    assert isinstance(ffn, MoeFfn)
    rate = on.chip.memory_bandwidth_bytes_per_s * on.software.memory_fraction
    by_hand = 2 * 2080 * 6144 * 2 / 1.35 / rate + 4 * on.software.kernel_launch_s
    assert experts_s(np.ones(1), ffn, on)[0] == pytest.approx(by_hand)
