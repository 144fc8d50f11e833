"""Stragglers and activations of the routing study: by hand, bounded, and as in a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.cost.experts import block_kept_bytes, experts_s
from moesim.cost.pricing import machine
from moesim.spec.load import load_scenario
from moesim.study.report.routing_traffic_tables import straggler_summary, tables
from moesim.study.resolve import Training, resolve
from moesim.study.routing import moe_layers
from moesim.study.routing_study import RoutingStudy, routing_study
from tests.unit.study.test_routing_study import write

D, F, T = 4096, 14336, 4096
"""Widths of Mixtral-8x7B and its experts; tokens of a rank."""
SKEWED = {"law": "lognormal", "cv": 1.0}


def study(folder: Path, routing: Any, model: str = "mixtral-8x7b", ep: int = 8) -> RoutingStudy:
    return routing_study(load_scenario(write(folder, model, ep, routing)))


def run_of(folder: Path, *settings: str) -> Training:
    return resolve(load_scenario(write(folder, "mixtral-8x7b", 8, {}), settings))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((), lambda n: 2 * (T * D + n * (D + 3 * F))),
        (("parallel.ep=4", "parallel.etp=2"), lambda n: 2 * (T * D + n * (D + 3 * F / 2))),
        (("training.recompute=[moe_act]",), lambda n: 2 * (T * D + n * (D + 2 * F))),
        (("training.recompute=full",), lambda n: 2 * T * D),
    ],
)
def test_what_a_block_keeps_by_hand(tmp_path: Path, settings: Any, expected: Any) -> None:
    """Input of the router, of the experts, gate and up of the activation, and their product."""
    run = run_of(tmp_path, *settings)
    layer = next(iter(moe_layers(run)))
    for rows in (0, 1, 9000):
        assert block_kept_bytes(layer.ffn, layer.shape, rows, job=run.job) == expected(rows)


def test_experts_take_no_less_than_their_flop(tmp_path: Path) -> None:
    """6 d f FLOP per row at 989.4 TFLOP/s at most; no rows, no time; more rows, more time."""
    run = run_of(tmp_path)
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    layer = next(iter(moe_layers(run)))
    found = [
        experts_s(layer.ffn, layer.shape, rows, job=run.job, on=on)
        for rows in ((0,), (1024,), (8192,), (16384,))
    ]
    assert found == sorted(found)
    assert found[0] == 0
    for seconds, rows in zip(found[1:], (1024, 8192, 16384), strict=True):
        assert seconds > 6 * D * F * rows / 989.4e12


def test_nobody_waits_under_forced_balance(tmp_path: Path) -> None:
    found = straggler_summary(study(tmp_path, {}).waits)
    for name in ("rows_excess", "rows_excess_met_once", "lost_s", "lost_met_once_s"):
        assert found[name] == pytest.approx(0, abs=1e-12)
    assert found["fullest_activation_bytes"] == pytest.approx(
        32 * 2 * (T * D + 2 * T * (D + 3 * F))
    )


def test_sums_of_maxima_and_maxima_of_sums(tmp_path: Path) -> None:
    """Against the rows of the table of ranks, added up here."""
    made = study(tmp_path, {"load": SKEWED}, "olmoe-1b-7b")
    rows = np.stack([layer.placed.rank_rows for layer in made.layers])
    found = straggler_summary(made.waits)
    mean = rows.mean(axis=1).sum()
    assert found["rows_excess"] == pytest.approx(rows.max(axis=1).sum() / mean - 1)
    assert found["rows_excess_met_once"] == pytest.approx(rows.sum(axis=0).max() / mean - 1)
    assert found["lost_s"] > found["lost_met_once_s"] > 0
    assert found["activation_bytes_of_maxima"] > found["fullest_activation_bytes"]
    assert found["fullest_activation_bytes"] > found["mean_activation_bytes"]
    for number, row in enumerate(tables(made)["stragglers"]):
        assert row["fullest_rank"] == int(rows[number].argmax())
        assert row["rows_excess"] == pytest.approx(rows[number].max() / rows[number].mean() - 1)
        # 32,768 tokens: what chance adds is small beside what the shares say
        assert row["lasting_excess"] == pytest.approx(row["rows_excess"], abs=0.05)
        kept = 2 * (T * 2048 + rows[number] * (2048 + 3 * 1024))
        assert row["fullest_activation_bytes"] == kept.max()
        assert row["mean_activation_bytes"] == pytest.approx(kept.mean())


def test_padded_experts_compute_and_keep_all_slots(tmp_path: Path) -> None:
    """Factor 2, padded: every rank has 2 * 2 T slots of its expert, however skewed the load."""
    capacity = {"factor": 2.0, "formula": "megatron", "pad": True}
    made = study(tmp_path, {"load": SKEWED, "capacity": capacity})
    found = straggler_summary(made.waits)
    assert found["rows_excess"] == 0
    for row in tables(made)["stragglers"]:
        assert row["fullest_activation_bytes"] == 2 * (T * D + 4 * T * (D + 3 * F))
