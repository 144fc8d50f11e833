"""Engines choose among kernels of their own, and of those only the ones meant for a layout."""

import numpy as np
import pytest

from moesim.cost.families import gemm, moe
from moesim.cost.fitted import Found
from moesim.cost.serving.deployment import Cut, Formats
from moesim.cost.serving.kernel_choice import experts, products, quickest
from tests.unit.cost.serving.deployments import deployment


def names(found: list[Found]) -> set[str]:
    return {one.curve.variant for one in found}


def test_an_engine_has_no_kernels_of_another() -> None:
    on = deployment("gpt-oss-120b", Cut(), software="tensorrt-llm")
    few, many = experts("w4a16_mxfp4", on, gated=True)
    assert {one.profile for one in many} == {"h100-sxm--trtllm"}
    assert names(few) == names(many) == {"moe_torch_flow"}
    # other profiles of this device have more, which it would have had to time as well
    assert len({one.profile for one in on.kernels.every("w4a16_mxfp4", "moe")}) > 1


@pytest.mark.parametrize("gated", [True, False])
def test_kernels_without_a_gate_are_for_layers_without_one(gated: bool) -> None:
    on = deployment("mixtral-8x7b", Cut(tp=8), software="tensorrt-llm")
    found = names(experts("bf16", on, gated=gated)[1])
    assert found
    assert all(name.endswith("_nongated") is not gated for name in found)


def test_wide_expert_parallel_kernels_need_groups_that_bring_tokens() -> None:
    together = deployment("deepseek-v3", Cut(tp=8, ep=8), software="tensorrt-llm")
    apart = deployment("deepseek-v3", Cut(dp=8, ep=8), software="tensorrt-llm")
    number = "fp8_block128"
    assert not any("wideep" in name for name in names(experts(number, together, gated=True)[1]))
    assert any("wideep" in name for name in names(experts(number, apart, gated=True)[1]))


def test_low_latency_kernels_count_for_few_tokens_alone() -> None:
    on = deployment("deepseek-v3", Cut(tp=8), Formats(experts="nvfp4"),
                    profile="dgx-b200", software="tensorrt-llm")  # fmt: skip
    few, many = experts("nvfp4", on, gated=True)
    assert names(many) < names(few)
    rest = names(few) - names(many)
    assert rest
    assert all("min_latency" in name or "flashinfer_trtllm" in name for name in rest)


def test_the_quickest_of_several_and_none_of_none() -> None:
    on = deployment("mixtral-8x7b", Cut(tp=8), software="tensorrt-llm")
    samples = {"m": np.array([1.0, 4096.0]), "n": np.full(2, 4096.0), "k": np.full(2, 4096.0)}
    found = products(gemm.GEMM, "bf16", on)
    each = [quickest(gemm.GEMM, [one], samples, on) for one in found]
    together = quickest(gemm.GEMM, found, samples, on)
    assert together is not None
    assert list(together) == [min(one[at] for one in each if one is not None) for at in (0, 1)]
    assert quickest(moe.MOE, [], samples, on) is None
