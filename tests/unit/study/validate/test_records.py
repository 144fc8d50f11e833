"""Records, their JSON form, pairs and contrasts, and scores, all by hand."""

import json
from dataclasses import replace
from typing import Any

import pytest

from moesim.spec.cases import Case
from moesim.study.report.files import to_json
from moesim.study.validate.contrasts import compared_pairs
from moesim.study.validate.figures import compared_figures, not_compared
from moesim.study.validate.record import Record, as_json, blank, ran
from moesim.study.validate.scores import grouped, headline, right_signs, score
from tests.unit.study.validate.made_up import case, case_file

KEYS = [
    "case", "source", "chip", "model", "class", "kind", "quality", "metric", "row", "predicted",
    "measured", "error", "low", "high", "status", "reason",
]  # fmt: skip
"""Of a record of `moesim validate --json`; what was assumed and the engine come after."""


def test_json_has_the_promised_keys() -> None:
    done = ran(blank(case()), "step_time_s", 0.6, 0.5)
    data = as_json(done)
    assert [key for key in data if key not in ("assumed", "software")] == KEYS
    assert json.loads(to_json(data)) == data
    assert (data["class"], data["status"], data["row"], data["low"]) == ("moe", "ran", None, None)
    assert data["error"] == pytest.approx(0.2)
    skipped = as_json(replace(blank(case()), reason="why"))
    assert (skipped["status"], skipped["error"], skipped["metric"]) == ("skipped", None, "")


def test_figures_are_compared_named_or_the_same_speed() -> None:
    measured = {
        "step_time_s": 0.5, "mfu_pct": 40, "mfu_peak_tflops": 312, "training_days": 3.0,
        "peak_memory_gb": 60, "loss_curve": [1, 2], "unheard_of": 7, "huge": 10**400,
    }  # fmt: skip
    found_case = case(measured=measured)
    base = blank(found_case)
    found = compared_figures(found_case, {"step_time_s": 0.4, "not_measured": 1.0}, base)
    assert [(one.metric, one.predicted, one.measured) for one in found] == [
        ("step_time_s", 0.4, 0.5)
    ]
    left = {one.metric: one for one in not_compared(found_case, found, base)}
    assert set(left) == {"training_days", "peak_memory_gb", "loss_curve", "unheard_of", "huge"}
    assert all(one.status == "skipped" and one.error is None for one in left.values())
    assert "campaign" in left["training_days"].reason
    assert "no single number" in left["loss_curve"].reason
    assert "no counterpart" in left["unheard_of"].reason
    assert left["unheard_of"].measured == 7.0
    alone = {one.metric: one.reason for one in not_compared(found_case, [], base)}
    assert "four ways" in alone["mfu_pct"]


def _pair(
    speeds: tuple[tuple[str, float], ...], cases: tuple[Case, Case], **lists: Any
) -> list[Record]:
    records = [
        ran(blank(one), metric, predicted, 1.0)
        for one, (metric, predicted) in zip(cases, speeds, strict=True)
    ]
    file = replace(case_file(**lists), cases=cases)
    return compared_pairs(file, list(cases), records)


A = case(id="a", quality="A", parallel={"gbs": 8, "seq": 100}, chips=8)
B = case(id="b", quality="B", parallel={"gbs": 16, "seq": 100}, chips=8)


def test_contrast_is_a_ratio_of_tokens_per_device() -> None:
    """100 tokens in 0.5 s against 200 tokens in 0.8 s: 200 and 250 tokens/s."""
    (one,) = _pair(
        (("step_time_s", 0.5), ("step_time_s", 0.8)), (A, B),
        contrasts=({"a": "a", "b": "b", "speedup": 1.5},),
    )  # fmt: skip
    assert (one.case, one.kind, one.metric, one.quality) == ("a -> b", "contrast", "speedup", "B")
    assert one.predicted == pytest.approx(1.25)
    assert one.error == pytest.approx(-1 / 6)


def test_contrast_of_layers_is_that_of_both_passes_together() -> None:
    """1 + 3 ms against 2 + 6 ms, of as many tokens."""
    layers = tuple(case(id=name, kind="moe_layer_fwd_bwd", parallel={"seq": 9}) for name in "ab")
    records = [
        ran(blank(layers[n]), metric, predicted, 1.0)
        for n, times in enumerate(((1.0, 3.0), (2.0, 6.0)))
        for metric, predicted in zip(("forward_ms", "backward_ms"), times, strict=True)
    ]
    file = replace(case_file(contrasts=({"a": "a", "b": "b", "speedup": 0.4},)), cases=layers)
    (one,) = compared_pairs(file, list(layers), records)
    assert one.predicted == pytest.approx(0.5)


def test_efficiency_of_moe_over_dense_is_the_speed_over_the_flop_ratio() -> None:
    """250 tokens/s of the MoE over 500 of the dense one, at 4 times fewer FLOP a token."""
    (one,) = _pair(
        (("tokens_per_s_per_gpu", 500.0), ("step_time_s", 0.8)), (A, B),
        pairs=({"dense": "a", "moe": "b", "flop_ratio": 4, "efficiency_ratio": 0.25},),
    )  # fmt: skip
    assert one.predicted == pytest.approx(0.125)
    assert one.error == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("contrast", "speeds", "reason"),
    [
        ({"a": "a", "b": "zzz", "speedup": 2}, ("step_time_s",) * 2, "zzz is no case"),
        ({"a": "a", "b": "b"}, ("step_time_s",) * 2, "speedup must be there"),
        ({"a": "a", "b": "b", "speedup": "fast"}, ("step_time_s",) * 2, "speedup must be there"),
        ({"a": "a", "b": "b", "speedup": 2}, ("step_time_s", "other"), "b was skipped"),
        ({"a": "a", "b": "b", "speedup": 2}, ("step_time_s", "examples_per_s"), "have no ratio"),
        ({"a": ["a"], "b": {"b": 1}, "speedup": 2}, ("step_time_s",) * 2, "is no case"),
    ],
)
def test_contrasts_that_cannot_be_scored_say_why(
    contrast: dict[str, Any], speeds: tuple[str, str], reason: str
) -> None:
    (one,) = _pair(((speeds[0], 1.0), (speeds[1], 1.0)), (A, B), contrasts=(contrast,))
    assert one.status == "skipped"
    assert reason in one.reason


def _contrast(predicted: float, measured: float) -> Record:
    return ran(replace(blank(case()), kind="contrast"), "speedup", predicted, measured)


def test_signs_of_contrasts() -> None:
    ran_ones = [_contrast(1.2, 1.01), _contrast(0.9, 0.5), _contrast(1.1, 0.9), _contrast(1.0, 2.0)]
    skipped = replace(blank(case()), kind="contrast")
    assert right_signs([*ran_ones, skipped, ran(blank(case()), "step_time_s", 1, 2)]) == (2, 4)


def _step(predicted: float, *assumed: str, **words: Any) -> Record:
    return ran(replace(blank(case(**words)), assumed=assumed), "step_time_s", predicted, 1.0)


def test_score_by_hand() -> None:
    """Errors -0.5, 0.1, 0.2 and one skipped: |.| is 0.1, 0.2, 0.5; p90 = 0.2 + 0.8 * 0.3."""
    records = [_step(0.5), _step(1.1), _step(1.2), blank(case())]
    found = score(("g",), records)
    assert (found.ran, found.total) == (3, 4)
    assert found.median == pytest.approx(0.2)
    assert found.p90 == pytest.approx(0.44)
    assert found.bias == pytest.approx(-0.2 / 3)
    nothing = score(("g",), [blank(case())])
    assert (nothing.ran, nothing.median, nothing.p90, nothing.bias) == (0, None, None, None)


def test_headline_parts_natural_routing_and_leaves_out_quality_c() -> None:
    layer = {"kind": "moe_layer_fwd_bwd"}
    records = [
        _step(1.5, cls="dense"),
        _step(1.1),
        _step(9.0, quality="C"),
        _step(1.3, "natural routing: of a law"),
        ran(blank(case(**layer)), "forward_ms", 1.2, 1.0),
        ran(blank(case(**layer)), "peak_mem_allocated_gb", 3.0, 1.0),
    ]
    medians = {one.name[0]: one.median for one in headline(records)}
    assert medians == {
        "dense training steps": pytest.approx(0.5),
        "MoE steps, forced balance": pytest.approx(0.1),
        "MoE steps, natural routing": pytest.approx(0.3),
        "memory": pytest.approx(2.0),
        "layers and kernels": pytest.approx(0.2),
    }


def test_only_dimensions_that_tell_records_apart_are_shown() -> None:
    done = ran(blank(case()), "step_time_s", 0.6, 0.5)
    names = ["By source", "By chip", "By class", "By kind", "By quality"]
    assert [title for title, _ in grouped([done])] == names
    versioned = replace(done, software="vllm 0.9")
    assert "By version" in [title for title, _ in grouped([done, versioned])]
