"""The gaps between tokens of all requests together are what lies between first and last tokens."""

from pathlib import Path

import pytest

from moesim.cost.iteration import PS_PER_S
from moesim.spec.load import load_serving
from moesim.study.serving.resolve import resolve
from moesim.study.serving.simulate import simulate

WORKLOAD = (
    "{arrivals: at_once, requests: 120, prompt: {law: uniform, low: 100, high: 3000}, "
    "output: {law: uniform, low: 1, high: 400}}"
)
APART = "disaggregation: prefill_decode, prefill: {replicas: 1}, decode: {replicas: 1}"


@pytest.mark.parametrize(
    ("devices", "more"),
    [
        (1, "{}"), (1, "{engine: {name: sglang}}"), (1, "{engine: {name: tensorrt-llm}}"),
        (1, "{engine: {memory_fraction: 0.24}}"), (2, "{cluster: {router: random}}"),
        (2, f"{{cluster: {{{APART}}}}}"),
        (2, f"{{cluster: {{{APART}, failures: {{device_mtbf: 2 s, restart: 1 s}}}}}}"),
        (2, "{cluster: {failures: {device_mtbf: 2 s, restart: 1 s}}}"),
        (4, "{parallel: {dp: 4, ep: 4}}"), (2, "{parallel: {pp: 2}}"),
    ],
)  # fmt: skip
def test_gaps_add_up(tmp_path: Path, devices: int, more: str) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(
        f"model: olmoe-1b-7b\ncluster: {{profile: dgx-h100, devices: {devices}}}\n"
        f"serving: {{workload: {WORKLOAD}}}\n",
        encoding="utf-8",
    )
    outcome = simulate(resolve(load_serving(file, [f"serving={more}"])))
    asked, gaps = outcome.requests, outcome.gaps
    assert gaps is not None
    between = sum(last - first for first, last in zip(asked.first, asked.finish, strict=True))
    assert gaps.total_ps / PS_PER_S == pytest.approx(between / PS_PER_S, rel=1e-6)
    if outcome.cluster is None or not outcome.cluster.recomputed:
        assert gaps.count == sum(asked.output) - len(asked)
