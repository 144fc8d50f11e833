"""Statistics of measured loads, against hand calculation and figures computed elsewhere."""

import csv

import numpy as np
import pytest

from moesim.moe import trace_statistics as statistics
from moesim.moe import traffic
from moesim.moe.traces import Trace, counts_of, make_trace, read_counts, read_npz
from tests.shared_files import shared

_TRACE = "expert-loads/deepseek_v2_lite_esft_routing_trace.npz"


def _real() -> dict[str, Trace]:
    return read_npz(shared(_TRACE), 64)


def test_four_experts_by_hand() -> None:
    """Loads 1, 2, 3, 6 of mean 3: deviations 4 + 1 + 0 + 9 = 14 over 4, so cv^2 = 14 / 36."""
    found = statistics.load_statistics(np.array([[2, 6, 1, 3], [5, 5, 5, 5]]))
    cv = (14 / 36) ** 0.5
    assert found.cv == pytest.approx([cv, 0])
    assert found.max_over_mean == pytest.approx([2, 1])
    assert found.min_over_mean == pytest.approx([1 / 3, 1])
    # (-3 * 1 - 1 * 2 + 1 * 3 + 3 * 6) / (4 * 12)
    assert found.gini == pytest.approx([16 / 48, 0])
    shares = np.array([1, 2, 3, 6]) / 12
    assert found.entropy == pytest.approx([-(shares * np.log(shares)).sum() / np.log(4), 1])
    # 3 / (4 a + 1) = 14 / 36
    assert found.concentration_moments[0] == pytest.approx((3 * 36 / 14 - 1) / 4)
    assert found.sigma_moments[0] == pytest.approx(np.log(1 + 14 / 36) ** 0.5)
    assert found.sigma_ml[0] == pytest.approx(np.log([1, 2, 3, 6]).std())


def test_statistics_agree_with_those_computed_elsewhere() -> None:
    """166 rows of layer and domain, five digits; maximum likelihood there is scipy's.

    Rows with an expert without any load are left out: logarithms then hang on what stands for 0.
    """
    tables = {}
    for name in ("deepseek_v2_lite_expert_counts", "olmoe_mixtral_expert_counts"):
        for table in read_counts(shared(f"expert-loads/{name}.csv")):
            stats = statistics.load_statistics(table.counts)
            for row, layer in enumerate(table.layers):
                if table.counts[row].min() > 0:
                    key = f"{table.model} {table.checkpoint} {table.domain} {layer}"
                    tables[f"{key} {table.selection}"] = (stats, row)
    columns = {
        "cv": "cv",
        "max_over_mean": "max_over_mean",
        "gini": "gini",
        "norm_entropy": "entropy",
        "dir_a_mom": "concentration_moments",
        "dir_a_mle": "concentration_ml",
        "ln_sigma_mom": "sigma_moments",
        "ln_sigma_log": "sigma_ml",
    }
    compared = 0
    with shared("expert-loads/load_statistics.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            key = " ".join(line[k] for k in ("model", "checkpoint", "domain", "layer", "selection"))
            if key not in tables:
                continue
            stats, row = tables[key]
            compared += 1
            for column, name in columns.items():
                found = float(getattr(stats, name)[row])
                assert found == pytest.approx(float(line[column]), rel=2e-4), (key, column)
    assert compared == 166


def test_rank_imbalance_and_fan_out_by_hand() -> None:
    counts = np.array([[1, 2, 3, 6]])
    assert statistics.rank_imbalance(counts, 2) == pytest.approx([9 / 6])
    assert statistics.rank_imbalance(counts, 4) == pytest.approx([2])
    ids = np.array([[[0, 1], [0, 2], [2, 3], [3, 0]]])
    trace = make_trace(ids, np.array([4]), 4)
    assert statistics.fan_out(trace, 2) == pytest.approx([1.5])
    assert statistics.fan_out(trace, 1) == pytest.approx([1])
    assert statistics.fan_out(trace, 4) == pytest.approx([2])


def test_locality_counts_shared_experts_inside_sequences_only() -> None:
    ids = np.array([[[0, 1], [1, 0], [1, 2], [1, 2]]])
    # shared with the one before: 2, 1, then a new sequence
    trace = make_trace(ids, np.array([3, 1]), 4)
    assert statistics.locality(trace) == pytest.approx([1.5])
    assert statistics.repetition(trace) == pytest.approx([1.0])
    assert np.isnan(statistics.locality(make_trace(ids, np.array([1] * 4), 4))).all()


def test_repetition_counts_tokens_and_not_experts() -> None:
    ids = np.array([[[0, 1], [1, 0], [2, 3], [3, 4], [5, 6]]])
    # shared with the one before: 2, 0, 1, 0
    trace = make_trace(ids, np.array([5]), 7)
    assert statistics.repetition(trace) == pytest.approx([0.5])
    assert statistics.locality(trace) == pytest.approx([0.75])
    assert np.isnan(statistics.repetition(make_trace(ids, np.array([1] * 5), 7))).all()


def test_windows_by_hand() -> None:
    ids = np.array([[[0, 1], [1, 0], [1, 2], [1, 3], [0, 1]]])
    trace = make_trace(ids, np.array([5]), 4)
    assert statistics.windows(trace, 2).tolist() == [[[2, 2, 0, 0], [0, 2, 1, 1]]]
    assert statistics.touched(trace, 2) == pytest.approx([2.5])
    # CV^2: deviations of 1 over mean 1; (1 + 1 + 0 + 0) / 4 over mean 1
    assert statistics.cv_squares(trace, [2]) == pytest.approx(np.array([[0.75]]))


def test_independent_tokens_show_the_burst_factor_of_independence() -> None:
    """Uniform choice: phi is 1, fitted to 20,000 tokens of 3 layers; within 0.1."""
    order = np.argsort(np.random.default_rng(0).random((3, 20_000, 16)), axis=2)[..., :4]
    assert statistics.phi(make_trace(order, np.array([20_000]), 16)) == pytest.approx(
        np.ones(3), abs=0.1
    )


def test_tokens_said_twice_show_twice_the_burst_factor() -> None:
    order = np.argsort(np.random.default_rng(1).random((3, 20_000, 16)), axis=2)[..., :4]
    trace = make_trace(np.repeat(order, 2, axis=1), np.array([40_000]), 16)
    assert statistics.phi(trace) == pytest.approx(np.full(3, 2.0), abs=0.15)


def test_a_trace_too_short_for_windows_counts_as_independent() -> None:
    ids = np.array([[[0, 1], [0, 2]]])
    # shares 1/2, 1/4, 1/4, 0: cv^2 = (1 + 0 + 0 + 1) / 4; 1 - cv^2 2 / 2
    assert statistics.phi(make_trace(ids, np.array([2]), 4)) == pytest.approx([0.5])


def test_real_locality_fan_out_and_drift_are_the_published_ones() -> None:
    traces = _real()
    locality = np.mean([statistics.locality(t) for t in traces.values()], axis=0)
    assert float(locality.mean()) == pytest.approx(1.67, abs=0.005)
    assert locality[[0, 1, 6, 13, 20, 25]] == pytest.approx(
        [0.82, 1.05, 1.71, 1.83, 1.75, 1.43], abs=0.0051
    )
    for ranks, measured in ((4, 3.355), (8, 4.553), (16, 5.334), (32, 5.764)):
        found = [float(statistics.fan_out(t, ranks).mean()) for t in traces.values()]
        assert float(np.mean(found)) == pytest.approx(measured, abs=0.0006)
        # the closed form for uniform choice, which sets the bytes: each task within 1 %
        assert found == pytest.approx([traffic.fan_out(ranks, 64, 6)] * 4, rel=0.01)


def test_real_rank_imbalance_is_the_published_one() -> None:
    """Contiguous placement, mean over 26 layers and four tasks."""
    counts = [counts_of(t) for t in _real().values()]
    for ranks, imbalance in ((4, 1.236), (8, 1.481), (16, 1.921), (32, 2.753), (64, 4.31)):
        found = np.mean([statistics.rank_imbalance(c, ranks) for c in counts])
        assert float(found) == pytest.approx(imbalance, abs=0.0006)


def test_real_halves_of_a_task_agree_and_tasks_do_not() -> None:
    traces = _real()
    for domain, expected in (
        ("intent", 0.998), ("law", 0.985), ("summary", 0.964), ("translation", 0.997),
    ):  # fmt: skip
        ids, lengths = traces[domain].ids, traces[domain].sequences
        half = ids.shape[1] // 2
        parts = [
            make_trace(part, np.array([part.shape[1]]), 64)
            for part in (ids[:, :half], ids[:, half:])
        ]
        found = statistics.correlation(counts_of(parts[0]), counts_of(parts[1])).mean()
        assert float(found) == pytest.approx(expected, abs=0.005)
        assert int(lengths.sum()) == ids.shape[1]
    counts = [counts_of(t) for t in traces.values()]
    across = [
        float(statistics.correlation(a, b).mean()) for i, a in enumerate(counts) for b in counts[:i]
    ]
    assert min(across) == pytest.approx(0.04, abs=0.005)
    assert max(across) == pytest.approx(0.227, abs=0.005)
