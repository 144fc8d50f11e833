"""Samplers set from traces make loads like the trace's; replay gives the trace itself."""

import numpy as np
import pytest

from moesim.errors import CalibrationError
from moesim.moe import trace_statistics as statistics
from moesim.moe import traffic
from moesim.moe.counts import Batch, draw_choices, inclusion, layer_streams
from moesim.moe.domains import draw_split, split
from moesim.moe.loads import Counts
from moesim.moe.trace_law import (
    DETAILS,
    TraceLaw,
    law_of,
    mixture_of,
    replay,
    replay_counts,
    replay_decode,
)
from moesim.moe.traces import CountTable, Trace, counts_of, make_trace, read_counts, read_npz
from tests.shared_files import shared

_RANKS = (4, 8, 16, 32, 64)


def _real() -> dict[str, Trace]:
    return read_npz(shared("expert-loads/deepseek_v2_lite_esft_routing_trace.npz"), 64)


def _tables() -> list[CountTable]:
    names = ("deepseek_v2_lite_expert_counts", "olmoe_mixtral_expert_counts")
    return [t for name in names for t in read_counts(shared(f"expert-loads/{name}.csv"))]


def _sample(law: TraceLaw, tokens: int, seed: int, *, in_order: bool = True) -> Counts:
    layers = range(law.shares.shape[1])
    mixture = mixture_of(law, layer_streams(seed, "shares", layers), in_order=in_order)
    streams = [layer_streams(seed, f"counts/{domain}", layers) for domain in law.domains]
    by_domain = split(mixture, tokens, np.random.default_rng(seed))
    return draw_split(mixture, Batch(tokens=tokens, top_k=law.top_k), by_domain, streams)


@pytest.mark.parametrize("domain", ["intent", "law", "summary", "translation"])
def test_sampled_loads_are_as_uneven_as_the_trace_in_every_layer(domain: str) -> None:
    """One draw of the trace's own size: max / mean and ranks, each layer within 10 %."""
    trace = _real()[domain]
    counts, law = counts_of(trace), law_of([trace])
    for seed in range(5):
        sampled = _sample(law, trace.ids.shape[1], seed)
        for ranks in _RANKS:  # 64 ranks hold one expert each: max / mean of experts
            found = statistics.rank_imbalance(sampled, ranks)
            assert found == pytest.approx(statistics.rank_imbalance(counts, ranks), rel=0.10)


def test_sampled_tables_are_as_uneven_as_the_tables_in_every_layer() -> None:
    """All 27 tables of three models, as many tokens as were counted."""
    for table in _tables():
        law = law_of([table])
        tokens = int(table.counts.sum(axis=1).max()) // table.top_k
        sampled = _sample(law, tokens, 1)
        for ranks in (r for r in _RANKS if r <= table.counts.shape[1]):
            found = statistics.rank_imbalance(sampled, ranks)
            assert found == pytest.approx(statistics.rank_imbalance(table.counts, ranks), rel=0.10)


@pytest.mark.parametrize(("detail", "tolerance"), [("profile", 0.05), ("lognormal", 0.12)])
@pytest.mark.parametrize("domain", ["intent", "law", "summary", "translation"])
def test_less_detail_keeps_the_mean_over_layers(detail: str, tolerance: float, domain: str) -> None:
    """Mean over 26 layers and 40 draws. A single layer is up to 35 % off: with labels dealt anew
    it is chance which experts share a rank; nor does the CV say how full the fullest one is."""
    trace = _real()[domain]
    counts, law = counts_of(trace), law_of([trace], detail)
    sampled = [_sample(law, trace.ids.shape[1], seed) for seed in range(40)]
    for ranks in _RANKS:
        found = np.mean([statistics.rank_imbalance(c, ranks) for c in sampled])
        expected = float(statistics.rank_imbalance(counts, ranks).mean())
        assert float(found) == pytest.approx(expected, rel=tolerance)


def test_chosen_experts_fan_out_as_the_closed_form_says() -> None:
    """Tokens drawn one by one from a trace's shares, mean over layers and tasks: within 1 %."""
    for ranks in (4, 8, 16, 32):
        found = []
        for trace in _real().values():
            for row in counts_of(trace)[::3]:
                chosen = draw_choices(
                    inclusion(row.astype(np.float64), 6), 2000, np.random.default_rng(ranks)
                )
                on = np.sort(chosen.experts // (64 // ranks), axis=1)
                found.append(1 + float((on[:, 1:] != on[:, :-1]).sum(axis=1).mean()))
        measured = np.mean([statistics.fan_out(t, ranks).mean() for t in _real().values()])
        assert float(np.mean(found)) == pytest.approx(float(measured), rel=0.01)
        assert float(np.mean(found)) == pytest.approx(traffic.fan_out(ranks, 64, 6), rel=0.01)


def test_windows_of_sampled_tokens_scatter_as_those_of_the_trace() -> None:
    """Mean CV of n tokens in order over layers and tasks, within 5 %; published: 1.29 .. 0.829."""
    traces = _real()
    laws = {name: law_of([trace]) for name, trace in traces.items()}
    for tokens, published in ((16, 1.29), (64, 0.983), (256, 0.875), (1024, 0.843), (4096, 0.829)):
        drawn = [_sample(law, tokens, seed) for law in laws.values() for seed in range(20)]
        cv = float(np.mean([(c.std(axis=1) / c.mean(axis=1)).mean() for c in drawn]))
        assert cv == pytest.approx(published, rel=0.05)


def test_decode_batches_of_several_tasks_scatter_as_the_published_mix() -> None:
    """Four tasks in equal parts, independent tokens: 0.903 at 16, 0.545 at 256, within 3 %."""
    law = law_of(list(_real().values()))
    for tokens, published in ((16, 0.903), (64, 0.625), (256, 0.545), (1024, 0.519)):
        drawn = [_sample(law, tokens, seed, in_order=False) for seed in range(40)]
        cv = float(np.mean([(c.std(axis=1) / c.mean(axis=1)).mean() for c in drawn]))
        assert cv == pytest.approx(published, rel=0.03)


def test_sampled_domains_drift_as_the_published_ones() -> None:
    """Two batches of 4,096 tokens: one task correlates by 0.96 or more, two by 0.04 to 0.23."""
    laws = [law_of([trace]) for trace in _real().values()]
    first, second = ([_sample(law, 4096, seed) for law in laws] for seed in (1, 2))
    same = [statistics.correlation(a, b).mean() for a, b in zip(first, second, strict=True)]
    assert float(min(same)) >= 0.96
    assert float(max(same)) <= 0.999
    across = [statistics.correlation(a, b).mean() for i, a in enumerate(first) for b in second[:i]]
    assert float(min(across)) == pytest.approx(0.04, abs=0.02)
    assert float(max(across)) == pytest.approx(0.227, abs=0.02)


@pytest.mark.parametrize("detail", sorted(DETAILS))
def test_every_detail_keeps_the_cv_or_comes_near(detail: str) -> None:
    """Shares and profile exactly; drawn shares in the mean of 200 layers within 6 %."""
    weights = np.exp(0.7 * np.random.default_rng(0).standard_normal((1, 256)))
    counts = np.tile((1e6 * weights).astype(np.int64), (200, 1))
    table = CountTable(counts, tuple(range(200)), 8, "m", "c", "d", "top8")
    mixture = mixture_of(law_of([table], detail), layer_streams(0, "x", range(200)))
    cv = mixture.shares[0].std(axis=1) / mixture.shares[0].mean(axis=1)
    expected = float(weights.std() / weights.mean())
    exact = detail in ("shares", "profile")
    assert float(cv.mean()) == pytest.approx(expected, rel=1e-4 if exact else 0.06)
    if detail == "profile":
        assert np.sort(mixture.shares[0], axis=1) == pytest.approx(
            np.sort(counts / counts.sum(axis=1, keepdims=True), axis=1)
        )


def test_profile_deals_out_labels_alike_in_all_domains() -> None:
    tables = [
        CountTable(np.array([row]), (0,), 1, "m", "c", name, "top1")
        for name, row in (("a", [1, 2, 3, 4]), ("b", [10, 20, 30, 40]))
    ]
    mixture = mixture_of(law_of(tables, "profile"), layer_streams(3, "x", [0]))
    assert mixture.shares[0] == pytest.approx(mixture.shares[1])
    assert sorted(mixture.shares[0, 0].tolist()) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_replay_gives_consecutive_tokens_from_the_start_of_a_sequence() -> None:
    ids = (np.arange(7)[None, :, None] + np.array([0, 10])) % 20
    trace = make_trace(ids, np.array([3, 4]), 20)
    for seed in range(8):
        found = replay(trace, 4, np.random.default_rng(seed), steps=2)
        assert found.shape == (2, 1, 4, 2)
        first = int(found[0, 0, 0, 0])
        assert first in (0, 3)
        assert found[:, 0, :, 0].ravel().tolist() == [(first + i) % 7 for i in range(8)]


def test_replayed_decode_batches_move_on_by_a_token_a_step() -> None:
    ids = (np.arange(7)[None, :, None] + np.array([0, 10])) % 20
    trace = make_trace(ids, np.array([3, 4]), 20)
    found = replay_decode(trace, 5, np.random.default_rng(1), steps=3)
    assert found.shape == (3, 1, 5, 2)
    assert ((found[1, 0, :, 0] - found[0, 0, :, 0]) % 7 == 1).all()


def test_a_replayed_table_keeps_its_shares_to_a_token() -> None:
    table = CountTable(np.array([[1, 2, 3, 6], [3, 3, 3, 3]]), (0, 1), 2, "m", "c", "d", "top2")
    assert replay_counts(table, 6).tolist() == [[1, 2, 3, 6], [3, 3, 3, 3]]
    assert replay_counts(table, 600).tolist() == [[100, 200, 300, 600], [300] * 4]
    assert replay_counts(table, 7).sum(axis=1).tolist() == [14, 14]


def test_traces_of_different_models_and_unknown_details_are_refused() -> None:
    one = CountTable(np.ones((1, 4), dtype=np.int64), (0,), 2, "m", "c", "d", "top2")
    other = CountTable(np.ones((1, 8), dtype=np.int64), (0,), 2, "m", "c", "d", "top2")
    with pytest.raises(CalibrationError, match="the same layers, experts and choices"):
        law_of([one, other])
    with pytest.raises(CalibrationError, match="Did you mean 'shares'"):
        law_of([one], "share")
    with pytest.raises(CalibrationError, match="at least one"):
        law_of([])
    with pytest.raises(CalibrationError, match="2 weights for 1 domains"):
        law_of([one], weights=(1.0, 2.0))
