"""The free words of a case: precision, recomputation, routing, dispatcher, offload."""

from collections.abc import Callable
from typing import Any

import pytest

from moesim.moe.natural import natural_cv
from moesim.spec.cases import Case
from moesim.study.validate.options import (
    Reading,
    read_dispatcher,
    read_precision,
    read_recompute,
    read_rest,
    read_routing,
)
from moesim.study.validate.skipped import SkippedError
from tests.unit.study.validate.made_up import case


def _read(how: Callable[[Case, Reading], None], **changes: Any) -> Reading:
    reading = Reading()
    how(case(**changes), reading)
    return reading


@pytest.mark.parametrize(
    ("word", "precision"),
    [("bf16", "bf16"), ("BF16", "bf16"), ("fp16", "fp16"), ("fp32", "fp32"), ("fp8", "fp8"),
     ("fp8-blockwise", "fp8"), ("FP8 delayed scaling", "fp8"), ("mxfp8", "fp8")],
)  # fmt: skip
def test_precisions(word: str, precision: str) -> None:
    assert _read(read_precision, precision=word).training["precision"] == precision


@pytest.mark.parametrize(
    ("word", "reason"),
    [("nvfp4", "training in nvfp4 is not modelled"), ("int3", "'int3' is not known"),
     (None, "no precision is given"), (8, "'8' is not known")],
)  # fmt: skip
def test_other_precisions_are_reasons(word: object, reason: str) -> None:
    with pytest.raises(SkippedError, match=reason):
        _read(read_precision, precision=word)


@pytest.mark.parametrize(
    ("words", "modules", "said"),
    [
        ("none", "none", ""),
        ("full", "full", ""),
        ("full, every layer", "full", ""),
        ("selective", ["core_attn"], "taken as the attention core"),
        (["norm", "moe_act", "moe_act"], ["layernorm", "moe_act"], ""),
        (["mlp", "shared_experts"], ["mlp", "shared_experts"], ""),
        (["mlp", "some_norm"], ["mlp"], "recomputation of some_norm is not modelled"),
        ([3, ["a"]], "none", "recomputation of 3 is not modelled"),
        (None, "none", "'not stated' taken as none"),
        ("a little", "none", "'a little' taken as none"),
    ],
)
def test_recomputation(words: object, modules: object, said: str) -> None:
    reading = _read(read_recompute, options={"recompute": words})
    assert reading.training["recompute"] == modules
    assert said in " ".join(reading.assumed)
    assert bool(said) is bool(reading.assumed)


@pytest.mark.parametrize(
    ("words", "law"),
    [("forced balance", None), ("forced balance, dropless", None), ("n/a", None),
     ("natural, dropless", "dirichlet"), ("natural", "dirichlet")],
)  # fmt: skip
def test_routing(words: str, law: str | None) -> None:
    reading = _read(read_routing, options={"routing": words})
    assert reading.routing.get("load", {}).get("law") == law
    assert bool(reading.assumed) is (law is not None)


def test_routing_that_is_not_stated_is_assumed() -> None:
    assert "routing not stated" in _read(read_routing, options={}).assumed[0]
    assert "taken as forced balance" in _read(read_routing, options={"routing": "odd"}).assumed[0]


def test_dropped_tokens_need_a_capacity() -> None:
    reading = _read(read_routing, options={"routing": "token drop", "capacity_factor": 1.25})
    assert reading.routing["load"] == {"law": "uniform"}
    assert reading.routing["capacity"] == {"factor": 1.25, "pad": True}
    with pytest.raises(SkippedError, match="no capacity factor is given"):
        _read(read_routing, options={"routing": "token drop"})


@pytest.mark.parametrize("factor", ["one", 0, -1, True, [1]])
def test_capacity_that_is_no_factor(factor: object) -> None:
    with pytest.raises(SkippedError, match="is no factor above 0"):
        _read(read_routing, options={"capacity_factor": factor})


@pytest.mark.parametrize(
    ("words", "dispatcher"),
    [("DeepEP, 20 SMs", "deepep"), ("hybridep", "hybridep"), ("allgather", "allgather"),
     ("alltoall", "alltoall"), ("n/a", "alltoall"), ("pigeons", "alltoall")],
)  # fmt: skip
def test_dispatchers(words: str, dispatcher: str) -> None:
    reading = _read(read_dispatcher, options={"dispatcher": words})
    assert reading.parallel["dispatcher"] == dispatcher
    assert bool(reading.assumed) is (words == "pigeons")


@pytest.mark.parametrize(("percent", "share"), [(0, 0.0), (25, 0.25), (75, 0.75), (100, 1.0)])
def test_offloaded_share_of_the_optimizer(percent: int, share: float) -> None:
    reading = _read(read_rest, options={"optimizer_cpu_offload_pct": percent})
    assert reading.training["optimizer"]["offload"] == share


@pytest.mark.parametrize("percent", [-1, 101, "half", True])
def test_offload_that_is_no_percentage(percent: object) -> None:
    with pytest.raises(SkippedError, match="is no percentage"):
        _read(read_rest, options={"optimizer_cpu_offload_pct": percent})


def test_options_that_change_nothing_are_listed() -> None:
    said = _read(read_rest, options={"moon_phase": "full", "routing": "natural"}).assumed
    assert said == ["not modelled: moon_phase = full"]


def test_natural_loads_are_as_uneven_as_measured_ones() -> None:
    """Mixtral's 8 experts 0.100; 64 experts 0.48; half way between them in log experts."""
    assert natural_cv(8) == pytest.approx(0.100)
    assert natural_cv(64) == pytest.approx((0.452 + 0.510) / 2, abs=0.005)
    assert natural_cv(256) == natural_cv(64)
    assert natural_cv(round(8 * 8**0.5)) == pytest.approx((0.100 + 0.48) / 2, abs=0.005)
