"""Which way tokens take to their experts, and what sums cost."""

import numpy as np
import pytest

from moesim.cost.serving.deployment import Cut, ExpertExchange
from moesim.cost.serving.exchange import all_reduce_s, brought_s, summed_s
from moesim.model.architecture import MoeFfn
from tests.unit.cost.serving.deployments import deployment

FFN = MoeFfn(num_experts=256, top_k=8, expert_width=2048, groups=8, groups_per_token=4)
TOKENS = np.array([16.0, 64.0, 128.0, 256.0, 4096.0])


def _brought(
    mode: ExpertExchange, devices: int = 8
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    cut = Cut(dp=devices, ep=devices, exchange=mode)
    on = deployment("deepseek-v3", cut, devices=devices, software="sglang")
    return brought_s(TOKENS, FFN, on)


def test_one_device_sends_nothing() -> None:
    on = deployment("llama-3.1-8b", Cut())
    assert list(all_reduce_s(TOKENS, on)) == [0.0] * 5


def test_deepep_changes_its_kernels_at_128_tokens() -> None:
    either, low, normal = (_brought(m) for m in ("deepep", "deepep_low", "deepep_normal"))
    assert list(either[:3]) == list(low[:3])
    assert list(either[3:]) == list(normal[3:])


def test_low_latency_kernels_win_with_few_tokens_and_lose_with_many() -> None:
    low, normal = _brought("deepep_low"), _brought("deepep_normal")
    assert low[0] < normal[0]
    assert low[-1] > normal[-1]


def test_everything_to_all_costs_what_a_gather_and_a_scatter_move() -> None:
    """4,096 tokens of 7,168 bf16 values from each of 8: 411 MB in and out at 450 GB/s at best."""
    bound_s = 2 * 7 / 8 * 8 * 4096 * 7168 * 2 / 450e9
    assert bound_s < _brought("allgather_reducescatter")[-1] < 2 * bound_s


def test_over_nodes_all_is_slower() -> None:
    assert (_brought("deepep", 32) > _brought("deepep", 8)).all()


def test_small_sums_take_the_engines_own_kernel() -> None:
    on = deployment("llama-3.1-70b", Cut(tp=8))
    few, many = summed_s(np.array([16e3, 64e6]), on.networks["tp"], on)
    # below the 20 us that NCCL needs at least; above, 64 MB at the rate of the switch
    assert few < 15e-6
    assert many > 2 * 7 / 8 * 64e6 / 900e9


@pytest.mark.parametrize("mode", ["one_sided", "deepep_normal"])
def test_ways_without_a_curve_take_the_links_rates(mode: ExpertExchange) -> None:
    cut = Cut(dp=4, ep=4, exchange=mode)
    on = deployment("deepseek-v3", cut, devices=4, profile="mi300x-8", software="sglang")
    assert (np.diff(brought_s(TOKENS, FFN, on)) > 0).all()
