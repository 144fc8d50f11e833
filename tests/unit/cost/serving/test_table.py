"""Iteration times of whole deployments: limits that hold whatever the curves say."""

from dataclasses import replace

import pytest

from moesim.cost.iteration import step_ps
from moesim.cost.serving.deployment import Cut, Formats
from moesim.cost.serving.table import HostTime, alike, iteration_times
from moesim.model.named import load_named
from tests.unit.cost.serving.deployments import deployment

S = 10**12


def test_a_decode_step_reads_the_weights_and_the_cache_once() -> None:
    """Llama-3.1-8B in bf16: 15.0 GB of weights but the embedding, 128 KiB of cache per token."""
    on = deployment("llama-3.1-8b", Cut())
    times = iteration_times(on, HostTime())
    bandwidth = on.chip.memory_bandwidth_bytes_per_s
    weights_s = 15.0e9 / bandwidth
    one = step_ps(times.lines(1), 100) / S
    assert weights_s < one < 1.5 * weights_s
    more = (step_ps(times.lines(32), 32 * 8000) - step_ps(times.lines(32), 32 * 1000)) / S
    cache_s = 32 * 7000 * 2**17 / bandwidth
    assert cache_s < more < 1.4 * cache_s


def test_tensor_parallel_ranks_share_the_work_and_pay_for_sums() -> None:
    one = iteration_times(deployment("llama-3.1-70b", Cut(tp=4)), HostTime())
    two = iteration_times(deployment("llama-3.1-70b", Cut(tp=8)), HostTime())
    ratio = step_ps(two.lines(8), 8000) / step_ps(one.lines(8), 8000)
    assert 0.5 < ratio < 0.9


def test_a_moe_reads_few_experts_with_few_sequences() -> None:
    """gpt-oss-120b has 5.1 B active of 117 B parameters: one sequence reads a twentieth."""
    formats = Formats(experts="w4a16_mxfp4")
    on = deployment("gpt-oss-120b", Cut(), formats)
    times = iteration_times(on, HostTime())
    few, many = (step_ps(times.lines(n), 1000 * n) / S for n in (1, 128))
    # all experts: 36 x 128 x 3 x 2,880^2 weights of 4.25 bits
    all_s = 36 * 128 * 3 * 2880**2 * 4.25 / 8 / on.chip.memory_bandwidth_bytes_per_s
    assert few < 0.35 * all_s
    assert many > 0.9 * all_s


def test_the_host_adds_its_time() -> None:
    on = deployment("llama-3.1-8b", Cut())
    plain = iteration_times(on, HostTime())
    slow = iteration_times(on, HostTime(iteration_s=1e-3))
    added = step_ps(slow.lines(16), 100) - step_ps(plain.lines(16), 100)
    assert added / S == pytest.approx(1e-3, rel=1e-6)


def test_the_host_adds_the_time_of_each_sequence_unless_the_device_hides_it() -> None:
    on = deployment("llama-3.1-8b", Cut())
    host = HostTime(iteration_s=1e-3, sequence_s=20e-6)
    plain, slow = iteration_times(on, HostTime()), iteration_times(on, host)
    for sequences in (16, 64):
        added = step_ps(slow.lines(sequences), 100) - step_ps(plain.lines(sequences), 100)
        assert added / S == pytest.approx(1e-3 + 20e-6 * sequences, rel=1e-6)
    beside = iteration_times(replace(on, hidden_host=True), host)
    assert beside.lines(16) == plain.lines(16)  # reading the weights takes 5 ms
    slower = replace(host, sequence_s=1e-3)
    longer = iteration_times(replace(on, hidden_host=True), slower)
    assert step_ps(longer.lines(16), 100) / S == pytest.approx(17e-3)
    assert longer.mixed_ps(16, 100, [(1, 0)]) / S == pytest.approx(18e-3)


def test_a_prompt_in_two_chunks_attends_as_much_as_in_one() -> None:
    """The second half sees the first: 3/4 of the pairs. Kernels cost more apart than together."""
    times = iteration_times(deployment("llama-3.1-8b", Cut()), HostTime())
    whole = times.chunks_ps([(16384, 0)])
    halves = times.chunks_ps([(8192, 0)]) + times.chunks_ps([(8192, 8192)])
    assert 0.95 * whole < halves < 1.3 * whole
    assert times.chunks_ps([(8192, 8192)]) > 2 * times.chunks_ps([(8192, 0)])


@pytest.mark.parametrize("model", ["deepseek-v3", "qwen3-next-80b-a3b", "gpt-oss-20b"])
def test_all_kinds_of_attention_have_times(model: str) -> None:
    times = iteration_times(deployment(model, Cut(tp=8)), HostTime())
    assert 0 < step_ps(times.attention(4), 4000) < step_ps(times.attention(64), 64 * 8000)
    assert 0 < times.chunks_ps([(512, 0)]) < times.chunks_ps([(512, 4096)])


def test_layers_that_alternate_are_priced_once_of_each_kind() -> None:
    # gpt-oss-120b: 36 layers, every other one with a window; DeepSeek-V3: 3 dense, then 58.
    assert [count for _, count in alike(load_named("gpt-oss-120b"))] == [18, 18]
    assert [count for _, count in alike(load_named("deepseek-v3"))] == [3, 58]
