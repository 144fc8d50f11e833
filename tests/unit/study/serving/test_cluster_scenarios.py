"""serving.cluster in scenarios: devices add up, senseless keys are errors."""

from pathlib import Path

import pytest

from moesim.cost.serving.transfer import group_devices, moved_bytes_per_token, ports
from moesim.errors import ScenarioError
from moesim.spec.load import load_serving
from moesim.study.serving.resolve import Serving, resolve
from moesim.study.serving.simulate import ServingOutcome, simulate

BASE = """
model: mixtral-8x7b
cluster: {profile: dgx-h100, devices: 16}
serving:
  parallel: {tp: 2}
  workload: {rate: 30 /s, requests: 100, prompt: 512, output: {law: uniform, low: 2, high: 60}}
"""
APART = """
  cluster:
    disaggregation: prefill_decode
    prefill: {replicas: 3}
    decode: {replicas: 5}
"""


def _resolved(tmp_path: Path, extra: str = "", *settings: str) -> Serving:
    file = tmp_path / "scenario.yaml"
    file.write_text(BASE + extra)
    return resolve(load_serving(file, settings))


def _run(tmp_path: Path, extra: str = "", *settings: str) -> ServingOutcome:
    return simulate(_resolved(tmp_path, extra, *settings))


def test_replicas_fill_the_cluster(tmp_path: Path) -> None:
    run = _resolved(tmp_path)
    assert [(pool.name, pool.replicas) for pool in run.pools] == [("all", 8)]
    assert _run(tmp_path).metrics.finished == 100


@pytest.mark.parametrize(
    ("extra", "setting", "message"),
    [
        ("", "replicas=3", "3 replicas of tp * dp * pp = 2 devices take 6, but"),
        ("", "autoscaling={maximum: 9, target: 1, interval: 1 s, start_up: 1 s}", "9 replicas"),
        ("", "autoscaling={minimum: 9, maximum: 8, target: 1, interval: 1 s, start_up: 1 s}",
         "minimum 9 is above maximum 8"),
        ("", "autoscaling={maximum: 8, target: 1, interval: 0 s, start_up: 1 s}", "interval"),
        ("", "drains=[{replica: 8, at: 1 s, duration: 1 s}]", "replicas are 0 to 7, not 8"),
        ("", "failures={device_mtbf: 0 s, restart: 1 s}", "device_mtbf must be longer"),
        ("", "prefill={replicas: 1}", "prefill need disaggregation: prefill_decode"),
        ("", "disaggregation=prefill_decode", "needs prefill and decode"),
        ("", "disaggregation=attention_ffn", "attention_ffn needs ffn"),
        ("", "ffn={devices: 4}", "attention_ffn needs ffn, and ffn needs it"),
        (APART, "decode.replicas=4", "3 prefill replicas of 2 and 4 decode replicas of 2 take"),
        (APART, "router=random", "router belong to replicas that do all"),
        (APART, "decode.parallel={tp: 2, ep: 3}", "must divide tp * dp = 2"),
    ],
)  # fmt: skip
def test_what_does_not_add_up_is_said(
    tmp_path: Path, extra: str, setting: str, message: str
) -> None:
    with pytest.raises(ScenarioError) as raised:
        _resolved(tmp_path, extra, f"serving.cluster.{setting}")
    assert message in str(raised.value)
    assert "serving.cluster" in str(raised.value)


def test_prefill_and_decode_have_their_own_layouts_and_engines(tmp_path: Path) -> None:
    run = _resolved(
        tmp_path, APART, "serving.cluster.prefill.replicas=2",
        "serving.cluster.decode={replicas: 3, parallel: {tp: 4}, engine: {max_sequences: 7}}",
    )  # fmt: skip
    prefill, decode = run.pools
    assert (prefill.engine.width, decode.engine.width) == (2, 4)
    assert decode.engine.rules.max_sequences == 7
    outcome = simulate(run)
    assert outcome.metrics.finished == 100
    assert outcome.cluster is not None and outcome.cluster.transfers == 100


def test_a_cache_of_mixtral_has_128_kib_per_token_and_goes_to_its_ranks(tmp_path: Path) -> None:
    run = _resolved(tmp_path, APART)
    on, topology = run.deployment, run.cluster.topology
    # 32 layers, 8 heads of 128 for keys and for values, 2 bytes each
    assert moved_bytes_per_token(on) == 32 * 8 * 128 * 2 * 2
    found = ports(on, 2, topology)
    software = on.software
    assert topology.scale_out is not None
    assert found.scale_out_bytes_per_s == pytest.approx(2 * 50e9 * software.scale_out_fraction)
    assert found.scale_up_bytes_per_s == pytest.approx(2 * 450e9 * software.scale_up_fraction)
    assert group_devices(on, 6, 1, 0) == [8, 9]


def test_layer_wise_transfers_are_shorter_and_slow_links_longer(tmp_path: Path) -> None:
    def transfer_s(*settings: str) -> float:
        outcome = _run(tmp_path, APART, *settings)
        assert outcome.cluster is not None
        return outcome.cluster.transfer_s

    usual = transfer_s()
    assert transfer_s("serving.cluster.transfer.overlap=layer_wise") < usual
    assert transfer_s("serving.cluster.transfer.network=scale_out") > usual


def test_failures_drains_and_scaling_change_what_happens(tmp_path: Path) -> None:
    usual = _run(tmp_path).metrics.e2e_s.mean
    failing = _run(tmp_path, "", "serving.cluster.failures={device_mtbf: 10 s, restart: 1 s}")
    assert failing.cluster is not None and failing.cluster.failures
    assert failing.metrics.finished == 100 and failing.metrics.e2e_s.mean > usual
    small = _run(
        tmp_path, "",
        "serving.cluster.autoscaling={maximum: 8, target: 8, interval: 1 s, start_up: 1 s}",
    )  # fmt: skip
    assert small.cluster is not None
    whole = _run(tmp_path).cluster
    assert whole is not None and small.cluster.replica_s < whole.replica_s
    drains = "serving.cluster.drains=[{replica: 0, at: 1 s, duration: 1 s}]"
    assert _run(tmp_path, "", drains).metrics != _run(tmp_path).metrics


def test_too_long_requests_are_rejected_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    some = _run(tmp_path, "", "serving.engine.max_model_tokens=540").metrics
    assert some.unfinished and some.finished + some.unfinished == 100
    with pytest.raises(ScenarioError, match="no request can be served"):
        _run(tmp_path, "", "serving.engine.max_model_tokens=512")


def test_a_seed_gives_the_same_run_again(tmp_path: Path) -> None:
    failing = ("serving.cluster.failures={device_mtbf: 10 s, restart: 1 s}",
               "serving.cluster.router=power_of_two")  # fmt: skip
    assert _run(tmp_path, "", *failing).metrics == _run(tmp_path, "", *failing).metrics
