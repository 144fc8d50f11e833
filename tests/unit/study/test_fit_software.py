"""The choice of host constants on made-up cases whose answer is known, and which cases count."""

from pathlib import Path

import numpy as np
import pytest

from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.fit_software import (
    PER_KERNEL_S,
    SYNC_S,
    Seen,
    fit_software,
    of_trainer,
)

ROW, COLUMN = 3, 4


def case(model: str, right: tuple[int, int], *, layer: bool = False) -> Seen:
    """Return a case that is predicted exactly at `right` and worse with the distance from it."""
    rows, columns = np.indices((len(PER_KERNEL_S), len(SYNC_S)))
    off = np.abs(rows - right[0]) + np.abs(columns - right[1])
    return Seen("c", model, np.log1p(0.1 * off), layer)


def test_constants_that_all_cases_share_are_found() -> None:
    fitted = fit_software([case(model, (ROW, COLUMN)) for model in "aabc"])
    assert (fitted.per_kernel_s, fitted.sync_s) == (PER_KERNEL_S[ROW], SYNC_S[COLUMN])
    assert fitted.steps.without == pytest.approx(0.1 * (ROW + COLUMN))
    assert fitted.steps.fitted == pytest.approx(0.0)
    assert fitted.median_left_out == pytest.approx(0.0)
    assert fitted.layers is None
    assert not fitted.at_end
    assert fit_software([case("a", (0, len(SYNC_S) - 1))]).at_end


def test_a_model_that_is_left_out_has_no_say() -> None:
    """Model b wants something else: alone it gets what a wants, and is off by one step of 10 %."""
    fitted = fit_software([*[case("a", (ROW, COLUMN))] * 3, case("b", (ROW + 1, COLUMN))])
    left = {one.model: one for one in fitted.left_out}
    assert left["b"].per_kernel_s == PER_KERNEL_S[ROW]
    assert left["b"].median_error == pytest.approx(0.1)
    assert left["a"].per_kernel_s == PER_KERNEL_S[ROW + 1]
    assert left["a"].cases == 3


def test_single_layers_have_no_say_and_are_told() -> None:
    """A layer that wants no host time is off by 10 % per step of the grid where steps want it."""
    steps = [case(model, (ROW, COLUMN)) for model in "abc"]
    layers = [case("d", (0, 0), layer=True)] * 9
    fitted = fit_software([*steps, *layers], present=(PER_KERNEL_S[2], SYNC_S[1]))
    assert (fitted.per_kernel_s, fitted.sync_s) == (PER_KERNEL_S[ROW], SYNC_S[COLUMN])
    assert fitted.layers is not None
    assert fitted.layers.cases == 9
    assert fitted.layers.without == pytest.approx(0.0)
    assert fitted.layers.present == pytest.approx(0.3)
    assert fitted.layers.fitted == pytest.approx(0.1 * (ROW + COLUMN))


def test_cases_count_by_the_profile_of_their_trainer() -> None:
    def told(name: str, kind: str, source: str, quality: str = "A", **measured: float) -> Case:
        words = {"source": source, "quality": quality, "measured": measured}
        on_tpu = {"hardware": "tpu_v6e", "parallel": {"pdb": 1}} if name == "tpu" else {}
        return Case(id=name, kind=kind, words={**words, **on_tpu})

    cases = (
        told("bridge", "train_step", "NVIDIA-NeMo/Megatron-Bridge", step_time_s=1.0),
        told("memory", "train_step", "NVIDIA-NeMo/Megatron-Bridge", peak_memory_gib=1.0),
        told("guess", "train_step", "NVIDIA-NeMo/Megatron-Bridge", "C", step_time_s=1.0),
        told("layer", "moe_layer_fwd_bwd", "somewhere", forward_ms=1.0),
        told("mpt", "train_step", "mosaicml/llm-foundry", step_time_s=1.0),
        told("tpu", "train_step", "AI-Hypercomputer/maxtext", step_time_s=1.0),
    )
    file = CaseFile(
        path=Path("f.yaml"), cases=cases, models={}, hardware={}, pairs=(), contrasts=()
    )
    assert [one.id for one in of_trainer(file, "megatron")] == ["bridge", "layer"]
    assert [one.id for one in of_trainer(file, "pytorch")] == ["mpt"]
