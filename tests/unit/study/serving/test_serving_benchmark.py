"""How long large serving runs take, with the fitted costs (slow lane, alone on a quiet machine).

`pytest -m slow -s tests/unit/study/serving/test_serving_benchmark.py` prints the CPU seconds.

The first one elsewhere (as found by others on a machine of two cores): NVIDIA's Rust replay engine
2.6 s with built-in timing and 4.2 s with kernel tables, a Go simulator (BLIS) 32 s, Vidur about
30 s by extrapolation per token.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moesim.spec.load import load_serving
from moesim.study.serving.resolve import resolve
from moesim.study.serving.simulate import ServingOutcome, simulate

pytestmark = pytest.mark.slow

ONE = """
model: mixtral-8x7b
cluster: {profile: dgx-h100, devices: 2}
serving:
  engine: {max_sequences: 256}
  parallel: {tp: 2}
  workload: {arrivals: closed, in_flight: 256, requests: 10000, prompt: 1024, output: 1024}
"""
MANY = """
model: mixtral-8x7b
cluster: {{profile: dgx-h100, devices: {devices}}}
serving:
  parallel: {{tp: 2}}
  cluster: {{router: {router}}}
  workload:
    rate: {rate} /s
    requests: 1000000
    prompt: {{law: uniform, low: 1, high: 512}}
    output: {{law: lognormal, mean: 200, cv: 1}}
"""
APART = """
model: deepseek-v3
cluster: {profile: hgx-h200, devices: 512}
serving:
  engine: {name: sglang}
  formats: {weights: fp8_block128}
  cluster:
    disaggregation: prefill_decode
    prefill: {replicas: 24, parallel: {dp: 8, ep: 8}}
    decode: {replicas: 10, parallel: {dp: 32, ep: 32}}
  workload:
    rate: 400 /s
    requests: 100000
    prompt: {law: lognormal, mean: 1024, cv: 1}
    output: {law: lognormal, mean: 256, cv: 1}
"""


def _cpu(work: Callable[[], ServingOutcome]) -> tuple[ServingOutcome, float]:
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


@pytest.mark.parametrize(
    ("name", "text", "most_s"),
    [
        ("10,000 of 1024 + 1024 tokens, 256 running", ONE, 2.0),
        ("1 M on one replica", MANY.format(devices=2, router="round_robin", rate=20), 20.0),
        ("1 M on 64 replicas, in turn",
         MANY.format(devices=128, router="round_robin", rate=1280), 20.0),
        ("1 M on 64 replicas, to the least loaded",
         MANY.format(devices=128, router="least_outstanding", rate=1280), 20.0),
        ("100,000 on 512 devices, prefill and decode apart", APART, 15.0),
    ],
)  # fmt: skip
def test_cpu_time(tmp_path: Path, name: str, text: str, most_s: float) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(text)
    outcome, took_s = _cpu(lambda: simulate(resolve(load_serving(file))))
    print(f"{name}: {took_s:.2f} s of CPU")
    assert outcome.metrics.unfinished == 0
    assert took_s < most_s
