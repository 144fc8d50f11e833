"""What would make a serving run fit: each suggestion, followed, does what it says."""

from pathlib import Path

import pytest

from moesim.cost.serving.memory import weights
from moesim.spec.load import load_serving
from moesim.study.serving.advice import SEQUENCES, Change
from moesim.study.serving.result import ServingResult
from moesim.study.serving.run import serve

UNFIT = """
model: deepseek-v3
cluster: {profile: dgx-h100, devices: 8}
serving:
  parallel: {tp: 8}
  formats: {weights: fp8_block128}
  workload: {arrivals: at_once, requests: 3, prompt: 1024, output: 16}
"""
APART = """
model: mixtral-8x7b
cluster: {profile: dgx-h100, devices: 3}
serving:
  cluster:
    disaggregation: prefill_decode
    prefill: {replicas: 1, parallel: {tp: 1}}
    decode: {replicas: 1, parallel: {tp: 2}}
  workload: {arrivals: at_once, requests: 3, prompt: 1024, output: 16}
"""


def _served(folder: Path, text: str, *settings: str) -> ServingResult:
    file = folder / "scenario.yaml"
    file.write_text(text)
    return serve(load_serving(file, settings))


def _by_key(result: ServingResult) -> dict[str, Change]:
    """Return the changes by what they set; of several, the one that takes the fewest devices."""
    found = sorted(result.model.changes, key=lambda one: -one.devices)
    return {one.settings[0].partition("=")[0]: one for one in found}


def test_each_suggestion_does_what_it_says(tmp_path: Path) -> None:
    result = _served(tmp_path, UNFIT)
    assert not result.fits
    assert any(one.fits for one in result.model.changes)
    for change in result.model.changes:
        followed = _served(tmp_path, UNFIT, *change.settings)
        assert followed.fits == change.fits, change
        assert followed.model.memory.missing_bytes == pytest.approx(change.missing_bytes)
        assert followed.model.memory.cache_tokens == change.cache_tokens


def test_what_a_change_frees_is_counted_by_hand(tmp_path: Path) -> None:
    """A larger share of what a process sees frees that share; half of the experts, half of them."""
    result = _served(tmp_path, UNFIT)
    held = weights(result.model.outcome.run.deployment)
    found = result.model.changes
    half = next(one for one in found if one.settings == ("serving.offload.resident_experts=128",))
    assert half.saved_bytes == pytest.approx(held.experts / 2)
    share = _by_key(result)["serving.engine.memory_fraction"]
    preset = result.model.outcome.run.preset.memory_fraction
    assert share.saved_bytes == pytest.approx((0.95 - preset) * 0.99 * 80 * 2**30)
    assert not share.fits


def test_what_fits_comes_first_and_the_fastest_of_that(tmp_path: Path) -> None:
    found = _served(tmp_path, UNFIT).model.changes
    fits = [one.fits for one in found]
    assert fits == sorted(fits, reverse=True)
    times = [one.decode_s for one in found if one.fits]
    assert times == sorted(times)
    assert all(one.together == 1 for one in found)


def test_a_pool_that_lacks_room_is_the_one_that_changes(tmp_path: Path) -> None:
    """Mixtral's 93 GB in bf16 are too much for one device of 80 GiB and enough for two."""
    result = _served(tmp_path, APART)
    assert result.model.memory.pool == "prefill"
    wider = _by_key(result)["serving.cluster.prefill.parallel.tp"]
    assert wider.settings == ("serving.cluster.prefill.parallel.tp=2", "cluster.devices=4")
    assert wider.fits
    assert _served(tmp_path, APART, *wider.settings).fits
    assert "of the prefill replicas" in result.html()


def test_several_together_where_none_is_enough(tmp_path: Path) -> None:
    """810 GB of weights on two devices: a quarter of that is as much too much on eight in bf16."""
    two = ["model=llama-3.1-405b", "cluster.devices=2", "serving.parallel.tp=2",
           "serving.formats.weights=bf16"]  # fmt: skip
    result = _served(tmp_path, UNFIT, *two)
    fitting = [one for one in result.model.changes if one.fits]
    assert fitting
    assert all(one.together == 2 for one in fitting)
    assert all(one.together == 1 for one in result.model.changes if not one.fits)
    for change in fitting:
        assert _served(tmp_path, UNFIT, *two, *change.settings).fits
    assert "Together these would make it fit" in result.html()


def test_what_fits_gets_no_advice(tmp_path: Path) -> None:
    result = _served(tmp_path, UNFIT, "cluster.profile=hgx-h200")
    assert result.fits
    assert result.model.changes == ()
    assert f"{SEQUENCES} decode in" not in result.html()
    assert "changes" not in result.tables()
