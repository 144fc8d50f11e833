"""What a stage does beside its passes: handing on activations, gathering weights."""

from pathlib import Path

import pytest

from moesim.cost.work import blocks
from moesim.model.operators import Collective
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
