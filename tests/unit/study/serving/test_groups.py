"""Where an iteration goes: what is no group of operators is the host's time alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from moesim.cost.iteration import PS_PER_S, step_ps
from moesim.cost.serving.launches import host_s
from moesim.cost.serving.table import alike, iteration_times
from moesim.study.serving.groups import BATCHES, decode_groups, prompt_groups
from moesim.study.serving.host import host_time
from moesim.study.serving.simulate import times_of
from tests.unit.study.serving.served import served

WAITS = "engine: {async_scheduling: false}"


@pytest.mark.parametrize(
    ("model", "devices", "keys"),
    [
        ("mixtral-8x7b", 2, "parallel: {tp: 2}"),
        ("llama-2-70b", 4, "parallel: {tp: 4}"),
        ("deepseek-v3", 8, "parallel: {dp: 8, ep: 8}\nformats: {weights: fp8_block128}"),
        ("mixtral-8x7b", 1, "offload: {resident_experts: 2, bandwidth: 50 GB/s}"),
    ],
)
def test_the_host_has_what_its_profile_says(
    tmp_path: Path, model: str, devices: int, keys: str
) -> None:
    run = served(tmp_path, model, devices=devices, cluster="hgx-h200", serving=f"{WAITS}\n{keys}")
    on = run.deployment
    times = times_of(run.pools[0].engine)
    found = decode_groups(on, times, 1000, (*BATCHES, 13))
    for batch, parts in found.items():
        needs_s = host_time(on.software).needs_s(batch)
        assert parts["host"] == pytest.approx(needs_s, abs=1e-5 * sum(parts.values()))


def test_a_host_beside_the_device_is_a_group_only_where_it_is_the_slower_one(
    tmp_path: Path,
) -> None:
    run = served(tmp_path, "llama-2-70b", devices=4, serving="parallel: {tp: 4}")
    on = run.deployment
    assert on.hidden_host
    fast = replace(on.software, host_per_iteration_s=0.0, host_per_sequence_s=0.0)
    slow = replace(on.software, host_per_iteration_s=0.5, host_per_sequence_s=0.01)
    for software, longest_s in ((fast, 0.0), (slow, 0.5 + 0.01 * 8)):
        times = iteration_times(replace(on, software=software), host_time(software))
        parts = decode_groups(on, times, 1000, (8,))[8]
        device_s = sum(parts.values()) - parts["host"]
        assert parts["host"] == pytest.approx(max(0.0, longest_s - device_s), abs=1e-5 * device_s)


def test_prompts_run_without_graphs_so_the_host_is_there_where_it_is_slower(tmp_path: Path) -> None:
    """Everything but attention: the longer of device and host time of its kernels, on top host."""
    run = served(tmp_path, "mixtral-8x7b", devices=2, serving=f"{WAITS}\nparallel: {{tp: 2}}")
    on, times = run.deployment, times_of(run.pools[0].engine)
    parts = prompt_groups(on, times, 2048)
    whole = (times.common_ps(2048, 1) + times.chunks_ps([(2048, 0)])) / PS_PER_S
    assert sum(parts.values()) == pytest.approx(whole, rel=1e-5)
    assert parts["host"] <= host_time(on.software).needs_s(1) + 1e-5 * whole
    small = served(tmp_path, "olmoe-1b-7b", serving=WAITS)
    on, times = small.deployment, times_of(small.pools[0].engine)
    few = prompt_groups(on, times, 2)
    device = sum(few.values()) - few["host"] - few["attention"]
    launches = host_s(alike(on.architecture), on)
    own = host_time(on.software).needs_s(1)
    assert few["host"] == pytest.approx(max(0.0, launches - device) + own, abs=1e-9)


GUESSES = "engine: {name: sglang, speculative: {draft_tokens: 2, acceptance: 0.7, mtp: true}}"


def test_guesses_are_a_group_of_their_own(tmp_path: Path) -> None:
    """Checked are k + 1 tokens a sequence; what a module adds comes on top, k times."""
    formats = "\nparallel: {tp: 8}\nformats: {weights: fp8_block128}"
    run = served(tmp_path, "deepseek-v3", devices=8, cluster="hgx-h200", serving=GUESSES + formats)
    plain = served(
        tmp_path, "deepseek-v3", devices=8, cluster="hgx-h200", serving="engine: {name: sglang}"
        + formats,
    )  # fmt: skip
    times = times_of(run.pools[0].engine)
    parts = decode_groups(run.deployment, times, 1000, [8])[8]
    checked = decode_groups(plain.deployment, times_of(plain.pools[0].engine), 1000, [24])[24]
    for name in ("experts", "router", "exchange of tokens", "head"):
        assert parts[name] == pytest.approx(checked[name])
    whole = times.common_ps(8, 8) / PS_PER_S
    attention = step_ps(times.attention(8), 8000) / PS_PER_S
    assert sum(parts.values()) == pytest.approx(whole + attention, rel=1e-5)
    assert 0 < parts["guesses"] < 2 / 61 * 2 * (whole + attention)


def test_half_of_a_batch_hides_exchanges_of_the_other_half(tmp_path: Path) -> None:
    keys = (
        "parallel: {dp: 8, ep: 8}\nformats: {weights: fp8_block128}\nengine: {overlap: two_batch}"
    )
    run = served(tmp_path, "deepseek-v3", devices=8, cluster="hgx-h200", serving=keys)
    on, times = run.deployment, times_of(run.pools[0].engine)
    parts = decode_groups(on, times, 1000, [128])[128]
    whole = (times.common_ps(128, 128, 1024) + step_ps(times.attention(128), 128_000)) / PS_PER_S
    assert sum(parts.values()) == pytest.approx(whole, rel=1e-5)
    assert parts["host"] <= host_time(on.software).iteration_s + 1e-5 * whole
