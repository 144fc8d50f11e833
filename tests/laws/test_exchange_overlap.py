"""Overlap of the expert exchange: never slower than none, never faster than compute or exchange.

Steps are CUDA graphs: a host that launches kernel by kernel and runs ahead can hide the exchange
behind its launches already, and pairs of passes then only add their warm-up.
"""

from pathlib import Path

import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.outcome import Outcome
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate

CASES = {
    "batch": ("olmoe-1b-7b", "{pp: 1, ep: 16}"),
    "batch, interleaved": ("olmoe-1b-7b", "{pp: 2, vpp: 4, ep: 8}"),
    "shared_expert": ("deepseek-v2-lite", "{pp: 1, ep: 16}"),
}


def _outcome(folder: Path, model: str, parallel: str, overlap: str) -> Outcome:
    file = folder / "overlap.yaml"
    file.write_text(
        f"model: {model}\ncluster: {{profile: dgx-h100, devices: 16}}\nparallel: {parallel}\n"
        "training: {sequence_length: 2048, global_batch: 128, cuda_graph: full, "
        f"overlap: {{expert_exchange: {overlap}}}}}\n",
        encoding="utf-8",
    )
    return simulate(resolve(load_scenario(file)))


@pytest.mark.parametrize("name", list(CASES))
def test_overlap_stays_between_its_limits(tmp_path: Path, name: str) -> None:
    plain = _outcome(tmp_path, *CASES[name], "none")
    beside = _outcome(tmp_path, *CASES[name], name.partition(",")[0])
    assert beside.metrics.step_s < plain.metrics.step_s
    shares = [one for one in plain.breakdown if one.name in {"dispatch", "combine"}]
    exchange_s = sum(one.seconds for one in shares)
    compute_s = sum(one.seconds for one in plain.breakdown if one.kind == "compute")
    assert beside.metrics.step_s >= max(exchange_s, compute_s)
    parts_s = sum(share.seconds for share in beside.breakdown)
    assert parts_s == pytest.approx(beside.steps[0].seconds, rel=1e-6)


@pytest.mark.parametrize("name", ["batch", "batch, interleaved"])
def test_delayed_gradients_of_weights_never_slow_a_step(tmp_path: Path, name: str) -> None:
    """They free exchanges to start earlier, and are computed all the same."""
    beside = _outcome(tmp_path, *CASES[name], "batch")
    delayed = _outcome(tmp_path, *CASES[name], "batch, delay_weight_gradients: true")
    assert delayed.metrics.step_s <= beside.metrics.step_s * (1 + 1e-9)
    for share in ("experts", "attention", "attention projections"):
        found = [
            sum(one.seconds for one in outcome.breakdown if one.name == share)
            for outcome in (beside, delayed)
        ]
        assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize(
    ("model", "parallel", "overlap", "says"),
    [
        ("olmoe-1b-7b", "{pp: 2, ep: 8}", "batch", "batch needs pp: 1, or vpp above 1"),
        ("olmoe-1b-7b", "{pp: 1, ep: 8, schedule: gpipe}", "batch", "gpipe pairs no passes"),
        ("olmoe-1b-7b", "{pp: 1, ep: 8}", "shared_expert", "has no shared experts"),
        (
            "olmoe-1b-7b",
            "{pp: 1, ep: 8}",
            "none, delay_weight_gradients: true",
            "needs expert_exchange: batch",
        ),
    ],
)
def test_what_cannot_overlap_says_why(
    tmp_path: Path, model: str, parallel: str, overlap: str, says: str
) -> None:
    with pytest.raises(ScenarioError, match=says):
        _outcome(tmp_path, model, parallel, overlap)
