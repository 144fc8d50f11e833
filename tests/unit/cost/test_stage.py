"""What a stage does beside its passes: handing on activations, gathering weights."""

from pathlib import Path
from typing import Any

import pytest

from moesim.cost.work import blocks
from moesim.model.operators import Collective
from moesim.study.report.tables import operators
from moesim.study.resolve import Training
from moesim.study.simulate import simulate
from moesim.study.split import stage_chunks
from tests.laws.small_runs import dense, outcome, resolved, without_curves


def _send_s(folder: Path, precision: str) -> float:
    changes = {"parallel": {"pp": 2, "ep": 1}, "training": {"precision": precision}}
    run = without_curves(resolved(folder, changes, dense(1024)))
    return simulate(run).stages[0].send_s


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_activations_go_on_at_two_bytes(tmp_path: Path, precision: str) -> None:
    """1024 tokens of 512 channels to the other node, at 0.8 of 50 GB/s after 5 us and a launch."""
    assert _send_s(tmp_path, precision) == pytest.approx(1024 * 512 * 2 / 40e9 + 5e-6 + 2.5e-6)


def test_fp32_activations_go_on_at_four_bytes(tmp_path: Path) -> None:
    assert _send_s(tmp_path, "fp32") == pytest.approx(1024 * 512 * 4 / 40e9 + 5e-6 + 2.5e-6)


def test_fp8_training_gathers_bf16_weights(tmp_path: Path) -> None:
    # an fp8 copy beside bf16 weights takes memory, but is made on arrival
    found = [
        outcome(tmp_path, {"parallel": {"ep": 1}, "training": {"precision": name}}, dense(1024))
        for name in ("bf16", "fp8")
    ]
    seconds = [made.stages[0].gather_s for made in found]
    assert seconds[0] == seconds[1] > 0


def _gathered_bytes(folder: Path) -> float:
    """Return what tensor parallel all-gathers of T5-Base bring to a rank in a forward pass."""
    changes = {
        "parallel": {"ep": 1, "tp": 2}, "model": "t5-base",
        "training": {"sequence_length": 512, "target_length": 128, "global_batch": 8},
    }  # fmt: skip
    run = resolved(folder, changes)
    ((chunk,),) = stage_chunks(run)
    found = [op for block in blocks(run.job, chunk, {}) for op in block.operators]
    return sum(
        op.payload_bytes
        for op in found
        if isinstance(op, Collective) and (op.group, op.kind) == ("tp", "all_gather")
    )


_GATHERS = 12 * 2 * 512 + 12 * 3 * 128 + 128
"""Tokens gathered: twice per encoder layer, three times per decoder layer, once for the logits."""


def test_an_encoder_decoder_gathers_its_tokens_before_each_block(tmp_path: Path) -> None:
    assert _gathered_bytes(tmp_path) >= 2 * 768 * _GATHERS


def test_cross_attention_gathers_the_output_of_the_encoder(tmp_path: Path) -> None:
    """Keys and values of a rank's heads need all 512 encoder tokens, at least once."""
    assert _gathered_bytes(tmp_path) >= 2 * 768 * (_GATHERS + 512)


TIED = {"tied_embeddings": True, "vocab": 32768, "layers": 8}


def _tied(folder: Path, layout: dict[str, Any], **training: Any) -> Training:
    changes = {"parallel": {"ep": 1, **layout}, "training": training}
    return without_curves(resolved(folder, changes, {**dense(1024), **TIED}))


@pytest.mark.parametrize(
    ("layout", "optimizer", "payload"),
    [
        ({"pp": 2}, {}, 32768 * 512 * 4),
        ({"pp": 4}, {}, 32768 * 512 * 4),
        ({"pp": 2, "tp": 2}, {}, 32768 * 512 * 4 / 2),
        ({"pp": 2}, {"distributed": False}, 32768 * 512 * 4),
        ({"pp": 2}, {"gradient_dtype": "bf16"}, 32768 * 512 * 2),
    ],
)
def test_both_ends_sum_the_gradients_of_a_tied_embedding(
    tmp_path: Path, layout: dict[str, int], optimizer: dict[str, Any], payload: float
) -> None:
    """Two ranks on two nodes: each sends its half and then the sum of the other half.

    2 (N-1)/N P over 0.8 of 50 GB/s and 5 us for each of both steps, one launch.
    """
    found = simulate(_tied(tmp_path, layout, optimizer=optimizer)).stages
    first, *middle, last = (stage.embedding_s for stage in found)
    assert first == last == pytest.approx(payload / 40e9 + 2 * 5e-6 + 2.5e-6)
    assert set(middle) <= {0.0}


def test_inside_a_domain_the_embedding_crosses_it_once(tmp_path: Path) -> None:
    """Eight stages of one NVLink domain: 0.75 of 450 GB/s, 0.85 us a step."""
    changes = {"cluster": {"devices": 8}, "parallel": {"ep": 1, "pp": 8}}
    run = without_curves(resolved(tmp_path, changes, {**dense(1024), **TIED}))
    expected = 32768 * 512 * 4 / (0.75 * 450e9) + 2 * 0.85e-6 + 2.5e-6
    assert simulate(run).stages[0].embedding_s == pytest.approx(expected)


def test_one_copy_has_nothing_to_sum(tmp_path: Path) -> None:
    assert simulate(_tied(tmp_path, {"pp": 1})).stages[0].embedding_s == 0.0
    apart = resolved(tmp_path, {"parallel": {"ep": 1, "pp": 2}}, dense(1024))
    assert [stage.embedding_s for stage in simulate(apart).stages] == [0.0, 0.0]


def test_the_sum_is_in_the_step_and_in_its_parts(tmp_path: Path) -> None:
    without = {"optimizer": {}, "overlap": {"grad_reduce": False, "param_gather": False}}
    run = _tied(tmp_path, {"pp": 2}, **without)
    made = simulate(run)
    spent = made.stages[0].embedding_s
    named = [piece for piece in made.slices if piece.name == "reduce embedding"]
    assert [piece.duration_s for piece in named] == pytest.approx([spent, spent])
    # both begin when the slower of both stages has reduced the rest
    assert named[0].start_s == named[1].start_s
    share = next(share for share in made.breakdown if share.name == "gradient reduction")
    reduced = sum(stage.reduce_s for stage in made.stages) / 2
    assert share.seconds == pytest.approx(reduced + spent)


def test_what_goes_to_the_next_stage_is_among_the_operators(tmp_path: Path) -> None:
    """Two chunks on each of two stages: three ways on, and three back."""
    changes = {"parallel": {"pp": 2, "vpp": 2, "ep": 1}}
    outcome_ = simulate(resolved(tmp_path, changes, dense(1024)))
    (row,) = [row for row in operators(outcome_) if row["operator"] == "pp_send"]
    assert (row["count"], row["tag"]) == (6, "transferred")
    assert row["seconds"] == outcome_.stages[0].send_s


def test_tf32_is_fp32_in_memory_and_on_the_wire_and_faster_in_the_matrix_units(
    tmp_path: Path,
) -> None:
    """H100: 494.5 TFLOP/s instead of 67, of the same bytes."""
    wide, rounded = (
        without_curves(
            resolved(
                tmp_path, {"parallel": {"pp": 2, "ep": 1}, "training": {"precision": precision}},
                dense(8192),
            )
        )
        for precision in ("fp32", "tf32")
    )  # fmt: skip
    before, after = simulate(wide), simulate(rounded)
    assert after.memory == before.memory
    assert [stage.send_s for stage in after.stages] == [stage.send_s for stage in before.stages]
    assert [stage.update_s for stage in after.stages] == [stage.update_s for stage in before.stages]
    assert after.metrics.flop_per_s_per_device > 2 * before.metrics.flop_per_s_per_device
    logits = {
        name: next(row for row in operators(made) if row["operator"] == "logits_dgrad")
        for name, made in (("fp32", before), ("tf32", after))
    }
    launch = 2.5e-6
    ratio = (logits["fp32"]["seconds"] - launch) / (logits["tf32"]["seconds"] - launch)
    assert ratio == pytest.approx(494.5 / 67)
