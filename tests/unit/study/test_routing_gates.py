"""Gating rules of a scenario: hash over a vocabulary, and experts that are MoEs themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from moesim.errors import ScenarioError
from moesim.study.routing_study import routing_study
from tests.unit.study.routing_runs import TOKENS, scenario

UNIFORM = {"law": "uniform"}


def _mix(x: int) -> int:
    """SplitMix64 in Python's integers."""
    mask = (1 << 64) - 1
    x = (x + 1) * 0x9E3779B97F4A7C15 & mask
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
    return x ^ (x >> 31)


@pytest.mark.parametrize(("exponent", "power"), [({}, 1.0), ({"zipf_exponent": 0.5}, 0.5)])
def test_hash_loads_follow_the_vocabulary(
    tmp_path: Path, exponent: Mapping[str, float], power: float
) -> None:
    """Frequencies rank^-power of the 32,128 ids of T5's vocabulary, binned by SplitMix64."""
    routing = {"load": UNIFORM, "gating": {"rule": "hash", **exponent}}
    made = routing_study(scenario(tmp_path, routing, "switch-base-8", target_length=512))
    expected = [0.0] * 8
    for token in range(32_128):
        expected[_mix(token) % 8] += (token + 1) ** -power
    layer = made.layers[0]
    for share, weight in zip(layer.drawn.shares, expected, strict=True):
        assert share == pytest.approx(weight / sum(expected))
    found = layer.drawn.routed / TOKENS
    for drawn, share in zip(found, layer.drawn.shares, strict=True):
        assert abs(drawn - share) < 4.5 * (share * (1 - share) / TOKENS) ** 0.5


def test_a_balanced_map_bins_all_but_the_most_frequent_token(tmp_path: Path) -> None:
    """At exponent 1 the first of 32,128 ids has 1 / (ln 32128 + 0.577) = 9.1 %, below 1 / 8."""
    routing = {"load": UNIFORM, "gating": {"rule": "hash", "hash_map": "balanced"}}
    made = routing_study(scenario(tmp_path, routing, "switch-base-8", target_length=512))
    assert made.layers[0].drawn.shares == pytest.approx([0.125] * 8, rel=1e-3)


def test_inner_moes_balance_the_tokens_that_came_to_them(tmp_path: Path) -> None:
    levels = [{"fanout": 2, "limit": 2}, {"fanout": 4, "limit": 1, "rule": "base"}]
    load = {"law": "lognormal", "cv": 1}
    gating = {"rule": "nested", "levels": levels}
    made = routing_study(scenario(tmp_path, {"load": load, "gating": gating}))
    for layer in made.layers:
        assert layer.drawn.routed.tolist() == [TOKENS / 4] * 8


@pytest.mark.parametrize(
    ("model", "gating", "load", "message"),
    [
        ("switch-base-8", {"rule": "hash"}, {"law": "lognormal", "cv": 1}, "token ids whatever"),
        ("mixtral-8x7b", {"rule": "hash"}, UNIFORM, "top_k is 1 here"),
        ("mixtral-8x7b", {"rule": "st_moe", "hash_map": "mixed"}, UNIFORM, "rule hash only"),
        ("mixtral-8x7b", {"rule": "nested"}, UNIFORM, "levels are missing"),
        ("mixtral-8x7b", {"rule": "nested", "levels": [{"fanout": 4, "limit": 2}]}, UNIFORM,
         "multiply to 4, not to the 8 experts"),
        ("mixtral-8x7b", {"rule": "nested", "noise": 1, "levels": [{"fanout": 8, "limit": 2}]},
         UNIFORM, "noise is read by levels"),
        ("mixtral-8x7b", {"rule": "nested", "levels": [{"fanout": 8, "limit": 2, "rule": "base"}]},
         UNIFORM, "rule base has the limit 1"),
        ("mixtral-8x7b",
         {"rule": "hierarchical", "levels": [{"fanout": 8, "limit": 2, "rule": "base"}]},
         UNIFORM, "the rule nested only"),
    ],
)  # fmt: skip
def test_what_does_not_suit_is_told(
    tmp_path: Path,
    model: str,
    gating: Mapping[str, Any],
    load: Mapping[str, Any],
    message: str,
) -> None:
    more = {"target_length": 512} if model.startswith("switch") else {}
    with pytest.raises(ScenarioError, match=message):
        routing_study(scenario(tmp_path, {"load": load, "gating": gating}, model, **more))
