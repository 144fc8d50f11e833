"""Attention and feed-forward networks on devices of their own, as scenarios say it."""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_serving
from moesim.study.serving.result import ServingResult
from moesim.study.serving.run import serve

BASE = """
model: {model}
cluster: {{profile: dgx-h100, devices: 16}}
serving:
  parallel: {{tp: 2, dp: 2, ep: 4}}
  cluster:
    disaggregation: attention_ffn
    ffn: {{devices: 4}}
  workload: {{rate: 30 /s, requests: 60, prompt: 512, output: {{law: uniform, low: 2, high: 60}}}}
"""


def _served(tmp_path: Path, *settings: str, model: str = "mixtral-8x7b") -> ServingResult:
    file = tmp_path / "scenario.yaml"
    file.write_text(BASE.format(model=model))
    return serve(load_serving(file, settings))


def test_a_replica_takes_devices_of_both_kinds(tmp_path: Path) -> None:
    result = _served(tmp_path)
    (pool,) = result.model.outcome.run.pools
    assert (pool.replicas, pool.engine.width) == (2, 8)
    assert result.model.outcome.metrics.finished == 60
    held = pool.engine.memory.weights
    assert held.experts == 0.0
    # queries, keys, values and output of 32 layers on two ranks, in two bytes: 4096 x (4096 + 1024
    # + 1024 + 4096)
    assert held.attention == pytest.approx(32 * 4096 * 10240 * 2 / 2, rel=1e-3)
    # eight experts of 32 layers over four devices, of three products of 4096 x 14336: 22.5 GB
    assert "holds 22.5 GB" in " ".join(result.summary()["assumptions"])


def test_networks_that_do_not_fit_are_a_result(tmp_path: Path) -> None:
    """DeepSeek-V3 in bf16: 58 layers of 64 experts on each of four devices are 327 GB."""
    settings = ("serving.parallel={tp: 1, dp: 4, ep: 4}",)
    result = _served(tmp_path, *settings, model="deepseek-v3")
    assert not result.summary()["fits"]
    missing = result.model.memory.missing_bytes
    assert missing == pytest.approx(327e9 + 7e9 - 85e9, rel=0.05)


@pytest.mark.parametrize(("setting", "model", "says"), [
    ("cluster.ffn.devices=5", "mixtral-8x7b", "ep: must divide cluster.ffn.devices = 5"),
    ("parallel={tp: 1, dp: 3, ep: 4}", "mixtral-8x7b", "pp + cluster.ffn.devices = 7 must divide"),
    ("parallel={tp: 2, dp: 1, ep: 4, pp: 2}", "mixtral-8x7b", "pp: above 1 is not modelled with"),
    ("engine.overlap=two_batch", "mixtral-8x7b", "micro-batches overlap here"),
    ("parallel.exchange=deepep", "mixtral-8x7b", "has an exchange of its own"),
    ("engine.speculative={draft_tokens: 1, acceptance: 0.5, draft_model: olmo-1b}",
     "mixtral-8x7b", "not modelled"),
    ("offload={resident_experts: 4}", "mixtral-8x7b", "offload: is not modelled with"),
    ("parallel.ep=1", "llama-3.1-8b", "has no experts"),
])  # fmt: skip
def test_what_is_not_modelled_is_an_error(
    tmp_path: Path, setting: str, model: str, says: str
) -> None:
    with pytest.raises(ScenarioError) as raised:
        _served(tmp_path, f"serving.{setting}", model=model)
    assert says in str(raised.value)
