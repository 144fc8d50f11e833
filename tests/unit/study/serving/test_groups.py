"""Where a decode iteration goes: what is no group of operators is the host's time alone."""

from pathlib import Path

import pytest

from moesim.study.serving.groups import groups
from moesim.study.serving.host import host_time
from moesim.study.serving.simulate import times_of
from tests.unit.study.serving.served import served


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
    run = served(tmp_path, model, devices=devices, cluster="hgx-h200", serving=keys)
    on = run.deployment
    found = groups(on, times_of(run.pools[0].engine), 1000)
    for parts in found.values():
        whole = sum(parts.values())
        assert parts["host"] == pytest.approx(host_time(on.software).iteration_s, abs=1e-5 * whole)
